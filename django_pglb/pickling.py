"""What leaves the process names no replica: caches and queues hold instances for longer than aliases live.

A replica's alias may be switched off, removed or renamed before an instance comes back, and Django goes by `instance._state.db` in places
where no router is asked. So instances and QuerySets are pickled as the primary's, which they can always be read and saved as, also where
this package is not installed. Copies within the process keep what they are.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.db.models import QuerySet
from django.db.models.base import ModelState

from .conf import get_usable_config

if TYPE_CHECKING:
    from collections.abc import Iterator

# An attribute of an instance's state, with which it is pickled: the replica that it was loaded from.
LOADED_FROM = "pglb_loaded_from"


class PassingAlias(str):
    """A replica's alias in something that may be on its way out: it is pickled as its primary's."""

    __slots__ = ("primary",)
    primary: str

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.primary,)

    def __copy__(self) -> PassingAlias:
        return self

    def __deepcopy__(self, memo: object) -> PassingAlias:
        return self


def register() -> None:
    """Have instances and QuerySets pickled as the primary's. Call it when all models are there; safe to call again."""
    copyreg.pickle(ModelState, _reduce_state)
    for queryset_class in {QuerySet, *_queryset_classes()}:
        copyreg.pickle(cast("type[QuerySet[Any]]", queryset_class), _reduce_queryset)


def _queryset_classes() -> Iterator[type[QuerySet[Any]]]:
    for model in apps.get_models(include_auto_created=True):
        for manager in (*model._meta.managers, model._base_manager):
            yield manager._queryset_class  # type: ignore[attr-defined]  # missing in the stubs


def _reduce_state(state: ModelState) -> tuple[Any, ...]:
    # Python asks this for copies, too, and Django copies the state of an instance before that is pickled.
    return _reduce(state, "db", remember=True)


def _reduce_queryset(queryset: QuerySet[Any]) -> tuple[Any, ...]:
    return _reduce(queryset, "_db")


def _reduce(thing: Any, attribute: str, *, remember: bool = False) -> tuple[Any, ...]:
    """Return what Python would pickle or copy `thing` by, with its alias as a `PassingAlias` if that is a replica's."""
    reduced: tuple[Any, ...] = thing.__reduce_ex__(4)
    how, arguments, attributes = reduced[:3]
    alias = attributes.get(attribute) if isinstance(attributes, dict) else None
    primary = None if alias is None else get_usable_config().home_of.get(alias)
    if primary is None or primary == alias:
        return reduced
    passing = PassingAlias(alias)
    passing.primary = primary
    memory = {LOADED_FROM: str(alias)} if remember else {}
    return (how, arguments, {**attributes, attribute: passing, **memory}, *reduced[3:])
