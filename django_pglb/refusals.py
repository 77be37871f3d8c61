"""Refuses what would do nothing on a replica, and say that it was done."""

from __future__ import annotations

from django.core.management.base import CommandError

from .engine import MIRROR_OF, connection_to
from .runtime import get_runtime


def refuse_replica(alias: str, command: str) -> None:
    """Raise `CommandError` if `alias` is a replica, whether or not all is switched off. A test mirror is none."""
    home = get_runtime().config.home_of.get(alias, alias)
    if home != alias and MIRROR_OF not in connection_to(alias).settings_dict["TEST"]:
        what = f"{alias!r} is a replica of {home!r}, where its tables and rows come from, so nothing would be done"
        raise CommandError(f"{what}: {command} --database {home}")
