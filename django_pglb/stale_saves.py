"""The lost-update guard: notices that an instance which was loaded from a replica is saved (`GUARD_STALE_SAVES`).

What a replica shows may be old, and what others have written since is overwritten. Connected only while some cluster's guard is on:
where it is off, nothing of this runs.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models.signals import post_init, pre_save

from . import conf
from .code_lines import find_line, find_query, find_refresh, is_insert
from .engine import connection_to
from .errors import StaleSave, StaleSaveWarning
from .pickling import LOADED_FROM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.models import Field, Model

    from .core.config import ClusterConfig

# Attributes of an instance's state, with which they are copied and pickled: the line that loaded it, and the replica and the fields that
# were read there and not saved when others were.
LOADED_AT = "pglb_loaded_at"
LEFT_STALE = "pglb_left_stale"

MESSAGE = (
    "{label}: {fields} would be saved to {primary!r} as read from the replica {alias!r} {where},"
    " which undoes what others have written there since. Load it with select_for_update(), or inside django_pglb.use_primary()."
)
NO_LINE = "(in async code or by Django itself, so the line is not known)"

# Python's memory of the warnings that were shown, which it otherwise keeps in the module of the line.
_shown: dict[Any, Any] = {}


def follow_settings() -> None:
    """Connect the guard if some cluster has it on, and disconnect it if none has. Safe to call again.

    The settings are not kept: Django may not have read all of them yet.
    """
    config, _ = conf.read()
    is_on = any(cluster.guard_stale_saves != "off" for cluster in config.clusters.values())
    for signal, receiver in ((post_init, note_loading), (pre_save, guard_save)):
        if is_on:
            signal.connect(receiver, dispatch_uid="django_pglb.stale_saves")
        else:
            signal.disconnect(receiver, dispatch_uid="django_pglb.stale_saves")


def note_loading(instance: Model, **_: object) -> None:
    """Remember which line of the project loads `instance`, if a query makes it."""
    query = find_query(sys._getframe(1))
    if query is None:
        return
    line = find_line(query)
    setattr(instance._state, LOADED_AT, line)
    refreshed = find_refresh(query)
    if refreshed is not None:
        _note_refresh(*refreshed, line)


def _note_refresh(instance: Model, fields: Iterable[str] | None, line: tuple[str, int] | None) -> None:
    """Note that `fields` of `instance` are read anew; None: all of them."""
    state = instance._state
    if fields is None or state.db not in conf.get_config().replicas:
        setattr(state, LOADED_AT, line)
    alias, left = getattr(state, LEFT_STALE, ("", frozenset()))
    setattr(state, LEFT_STALE, (alias, frozenset() if fields is None else left.difference(fields)))


def guard_save(instance: Model, raw: bool, using: str, update_fields: Collection[str] | None, **_: object) -> None:
    """Complain if saving `instance` may overwrite what it has not seen. Raises `StaleSave` where the guard says so."""
    cluster = conf.get_config().clusters.get(using)
    if cluster is None or cluster.guard_stale_saves == "off" or raw or instance._state.adding or instance.pk is None:
        return
    alias, stale = _stale_fields(instance, using)
    if alias not in cluster.aliases or connection_to(alias).pglb_mirror_of is not None or is_insert(sys._getframe(1)):
        return
    saved = [field for field in stale if update_fields is None or {field.name, field.attname} & set(update_fields)]
    fields = [] if _is_login(instance, update_fields) else [field.name for field in saved if is_written_back(field, instance)]
    if fields:
        _complain(instance, cluster, alias, fields)
    setattr(instance._state, LEFT_STALE, (alias, frozenset(field.attname for field in stale if field not in saved)))


def _complain(instance: Model, cluster: ClusterConfig, alias: str, fields: list[str]) -> None:
    line = getattr(instance._state, LOADED_AT, None)
    where = NO_LINE if line is None else "at {}:{}".format(*line)
    message = MESSAGE.format(label=instance._meta.label, fields=", ".join(fields), primary=cluster.primary, alias=alias, where=where)
    if cluster.guard_stale_saves == "raise":
        raise StaleSave(message, instance)
    file, number = find_line(sys._getframe(2), past_saves_of=instance) or ("async code", 0)
    warnings.warn_explicit(message, StaleSaveWarning, file, number, registry=_shown)


def _stale_fields(instance: Model, using: str) -> tuple[str, list[Field[Any, Any]]]:
    """Return the replica that `instance` was loaded from, and the fields that are still as they were there; no alias if there is none.

    Deferred ones count: saved to another alias than it was loaded from, an instance first loads what it lacks, and then saves it.
    """
    meta, alias = instance._meta, instance._state.db or ""
    fields = [field for field in meta.concrete_fields if not (field.primary_key or field in meta.pk_fields or field.generated)]
    if alias != using:
        return alias, fields
    # Django takes an instance for one of the primary's as soon as any field was saved there. It is pickled as one, too.
    unsaved = (getattr(instance._state, LOADED_FROM, ""), frozenset(field.attname for field in fields))
    alias, left = getattr(instance._state, LEFT_STALE, unsaved)
    return (alias, [field for field in fields if field.attname in left]) if left else ("", [])


def is_written_back(field: Field[Any, Any], instance: Model) -> bool:
    """Say whether what is saved in `field` may owe something to what was read: not what the server computes, nor the time of the save."""
    return not (getattr(field, "auto_now", False) or hasattr(instance.__dict__.get(field.attname), "resolve_expression"))


def _is_login(instance: Model, update_fields: Collection[str] | None) -> bool:
    """Say whether Django notes a login, as it does with the user that it has just read: that is the time of the save, too."""
    return set(update_fields or ()) == {"last_login"} and instance._meta.label_lower == settings.AUTH_USER_MODEL.lower()
