"""Another process of the site, which takes pointers and gives them: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings


def read(pointer: str | None) -> list[Any]:
    """Return the newest text, and who served it and why; or why the pointer was refused."""
    from django_pglb import current_decisions, routing_session

    from .guestbook.models import Entry

    try:
        with routing_session(pointer=pointer):
            text = Entry.objects.order_by("-pk").values_list("text", flat=True).first()
            return [text, *([alias, reason] for alias, reason, _ in current_decisions())]
    except ValueError as error:
        return [str(error)]


def write(text: str) -> str:
    """Write, and return what whoever is to see it must be given."""
    from django_pglb import export_pointer, routing_session

    from .guestbook.models import Entry

    with routing_session():
        Entry.objects.create(text=text)
        return export_pointer()


def are_online() -> bool:
    """Say whether this process may read from both replicas."""
    from django_pglb import runtime

    return len(runtime.get_runtime().topology("default").online) == 2


def serve() -> None:
    """Answer until there are no more lines: the first one says that both replicas are known."""
    from django_pglb.testing import wait_until

    wait_until(are_online, timeout=60, what="both replicas to be online")
    work: dict[str, Callable[[Any], Any]] = {"read": read, "write": write}
    answer(None)
    for line in sys.stdin:
        what, argument = json.loads(line)
        answer(work[what](argument))


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # However long a busy machine takes, a paused replica stays in the rotation.
    settings.PGLB["default"]["MAX_LAG_SECONDS"] = None
    django.setup()
    serve()
