"""Where an instance belongs whose alias no query may go to: one that is switched off, removed or renamed, or no replica of a cluster now.

Instances come out of caches and queues long after they were loaded. Such a one works like one from the primary of its model's cluster.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.db import connections, router

from .pickling import LOADED_FROM
from .runtime import get_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model

log = logging.getLogger("django_pglb.routing")

_told: set[str] = set()
"""The aliases whose loss has been logged."""

ADDRESS = ("HOST", "PORT", "NAME")


def home_of(alias: str) -> str | None:
    """Return where an instance of `alias` is written: the primary of its cluster, in force or not; None if there is no such alias."""
    home = get_runtime().config.home_of.get(alias)
    return home or (alias if alias in connections.settings else None)


def home_of_gone(alias: str, model: type[Model]) -> str:
    """Return where rows of `model` are read for somebody who names `alias`, which is not there: it may have been a replica's.

    That is the primary of the model's cluster; a model of no cluster is left to Django, which says that there is no such alias.
    Nothing is written so: what says where to write has been written by people, and may be a slip.
    """
    home = router.db_for_write(model)
    if get_runtime().config.home_of.get(home) != home:
        return alias
    if alias not in _told:
        _told.add(alias)
        log.warning("%s is not in DATABASES, or not any more: what is to be read there is read from %s.", alias, home)
    return home


def primary_followed_by(alias: str | None) -> str | None:
    """Return the primary whose replica `alias` still is, although no `REPLICAS` names it: tests mirror that one, and it is no server's own.

    What is read from there may be stale, and nothing can be written there. Statements that are addressed to it go there all the same.
    """
    config, databases = get_runtime().config, connections.settings
    if alias is None or alias in config.home_of or alias not in databases:
        return None
    mirrored = databases[alias]["TEST"]["MIRROR"]
    if config.home_of.get(mirrored, "") != mirrored or _address(databases[alias]) == _address(databases[mirrored]):
        return None
    return str(mirrored)


def is_of_primary(instance: Model, primary: str) -> bool:
    """Say whether `instance` was loaded from `primary`, or must pass for that, as its alias is gone."""
    state = instance._state
    if state.db == primary:
        return getattr(state, LOADED_FROM, None) not in get_runtime().config.replicas
    return state.db is not None and state.db not in connections.settings


def _address(options: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(options[key]) for key in ADDRESS)
