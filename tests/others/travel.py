"""Goes on one journey in this process, and prints how each step ended: `python -m tests.others.travel`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer messages are pages.
LONGEST = 300
# The journey's own models get migrations, since they may extend those of others.
MIGRATIONS = "place_migrations"


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.others.settings"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MIGRATIONS).mkdir()
        (Path(folder) / MIGRATIONS / "__init__.py").touch()
        sys.path.append(folder)
        os.environ["OTHERS_FOLDER"] = folder
        django.setup()
        _tell()


def _tell() -> None:
    from .settings import IS_OURS, MODE, journey

    result = {"checks": _checks()} if MODE == "bare" else _travel(journey, is_ours=IS_OURS)
    of_journey = {
        "version": version(journey.PACKAGE),
        "wanted": [journey.CHECK] if hasattr(journey, "CHECK") else [],
        "is_read_from_primary": getattr(journey, "IS_READ_FROM_PRIMARY", False),
    }
    print(json.dumps({**of_journey, **result}))


def _checks() -> list[str]:
    from django.core.checks import run_checks

    return sorted({str(message.id) for message in run_checks() if str(message.id).startswith("django_pglb.")})


def _travel(journey: Any, *, is_ours: bool) -> dict[str, Any]:
    from django.contrib.auth import get_user_model
    from django.core.cache import cache
    from django.core.management import call_command

    from .visit import NAME, PASSWORD, Visit

    cache.clear()
    call_command("makemigrations", "place", verbosity=0, stdout=StringIO())
    call_command("migrate", verbosity=0, run_syncdb=True, stdout=StringIO())
    get_user_model().objects.create_superuser(NAME, f"{NAME}@example.com", PASSWORD)
    if hasattr(journey, "prepare"):
        journey.prepare()
    settle = _settle if is_ours else lambda: None
    if is_ours:
        from django_pglb.runtime import get_runtime

        get_runtime().vouch("default")
    settle()
    visit = Visit()
    ended = {step.__name__: _end_of(step, visit, settle) for step in journey.STEPS}
    ran = {f"{where} ({reason})": count for (where, reason), count in visit.ran.most_common()}
    return {"ended": ended, "ran": ran, "checks": _checks() if is_ours else []}


def _settle() -> None:
    """Wait until both replicas have everything, and the checker has seen it."""
    from django.db import connection

    from django_pglb.runtime import get_runtime
    from django_pglb.testing import wait_until

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_lsn() - '0/0'")
        (lsn,) = cursor.fetchone()
    runtime = get_runtime()

    def have_it() -> bool:
        return [(host.replay_lsn or 0) >= lsn for host in runtime.topology("default").online] == [True, True]

    wait_until(have_it, timeout=60, what="the checker to see both replicas there")


def _end_of(step: Any, visit: Any, settle: Callable[[], None]) -> str:
    visit.shown.clear()
    try:
        step(visit)
        settle()
        visit.look_again()
    except Exception as error:  # noqa: BLE001 - how it ends is what is compared
        if "OTHERS_TRACE" in os.environ:
            import traceback

            traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {error}"[:LONGEST]
    return ""


if __name__ == "__main__":
    main()
