"""What another engine does when a cursor is opened, below ours or above it: for tenants, for row-level security, for monitoring.

1. Such an engine overrides `_cursor()`, or `cursor()`, and tells the session there whose rows it may see. Ours hands out a cursor before
   it is known where its statement will run, and one cursor may come to another host.
2. So where an engine overrides one of the `DOORS`, ours answers at the door, and goes through the whole of it, as Django would, on each
   connection on which a statement is about to run. Meanwhile the engine is Django's own: whatever is sent means this very connection.
3. Such engines are told things (`connection.set_tenant(…)`), and only the primary's connection is. What was changed there by others than
   the engine's own code at work, a replica's must say, too. The rest is what each connection remembers of its own session: once there is
   news, and in each unit of work, a replica's begins with that as a new one does.
"""

from __future__ import annotations

import functools
import sys
import weakref
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cache, wraps
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, cast

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from django.utils.functional import cached_property

from ..conf import get_config
from ..context import current_scope
from ..engine import connection_to
from .view_block import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.routing_session import RoutingSession

    Place = tuple[str, str]

DOORS: dict[str, Any] = {
    "_cursor": None,  # ours
    "chunked_cursor": DatabaseWrapper.chunked_cursor,
    "cursor": BaseDatabaseWrapper.cursor,
}
"""How a cursor is asked for -> what asks ours for one."""

ON_THE_WAY = ("create_cursor", "ensure_connection")
"""What else happens in Django whenever a cursor is opened."""

WRAPPERS = ("_prepare_cursor", "make_cursor", "make_debug_cursor")
"""What puts a wrapper of the engine's own around a raw cursor."""

CONNECTING = ("connect", "get_connection_params", "get_new_connection", "init_connection_state")
"""What happens only when a connection is made."""

STEPS = ("connect", "ensure_connection")
"""How a connection is made: what is sent meanwhile means this very connection."""

MISSING: Any = object()
_NOBODY = nullcontext()

# What is compared by what it says: others may be changed in their place, or be anything.
CONTAINERS = (dict, list, set)
COMPARED = frozenset({*CONTAINERS, bool, bytes, float, int, str, tuple})
# Told by their types: some objects of a project come to life when they are looked at.
MADE_OF_FUNCTIONS = (FunctionType, property, classmethod, staticmethod, functools.cached_property, cached_property)
# Where nobody leaves the name of what an engine is told.
LIBRARIES = frozenset({*sys.stdlib_module_names, "asgiref", "psycopg", "psycopg_pool"})


class EngineLayers(Base):
    """Mix into a `DatabaseWrapper`: the part that lets other engines take part."""

    pglb_layers: frozenset[tuple[str, Any]] = frozenset()
    """What other engines do when a cursor is opened: name and function."""
    _pglb_opens_by_engine = False
    """Whether a raw cursor must be opened by the engine's own methods."""
    _pglb_connects_by_engine = False
    """Whether an engine may tell a session something while it is made, and never again."""
    _pglb_means_itself: bool
    _pglb_home: Callable[[], str | None]
    pglb_prepare: Callable[[], None]

    _pglb_parts: dict[str, Any]
    """Where an engine may be told something: itself, as "", and objects that it has made for itself, by name."""
    _pglb_at_first: dict[Place, Any]
    """What it said when it was made."""
    _pglb_seen: dict[Place, Any]
    """What it said when its own code had last run."""
    _pglb_told: dict[Place, Any]
    """What was changed by others."""
    _pglb_times_told = 0
    _pglb_followed: tuple[int, weakref.ref[RoutingSession] | None] = (0, None)
    """How often the primary's had been told something when this one took that over, and for which unit of work."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.pglb_layers = frozenset((name, function) for name in (*DOORS, *ON_THE_WAY) for function in _foreign(cls, name))
        cls._pglb_connects_by_engine = any(True for name in CONNECTING for _ in _foreign(cls, name))
        wraps_cursors = any(True for name in WRAPPERS for _ in _foreign(cls, name))
        cls._pglb_opens_by_engine = bool(cls.pglb_layers) or wraps_cursors or cls._pglb_connects_by_engine
        for name, ask in DOORS.items():
            if _comes_from_others(cls, name):
                setattr(cls, name, _at_door(cls, name, ask))
        for name in STEPS:
            if _comes_from_others(cls, name):
                setattr(cls, name, _as_djangos(cls, name))
        if cls._pglb_opens_by_engine:
            cls.__init__ = _watched_from_now_on(cls)  # type: ignore[method-assign]

    @classmethod
    def pglb_why_not_honoured(cls) -> str:
        """Return why what this engine does would not happen, or why ours would not; empty if all is well."""
        order = cls.__mro__
        if order.index(EngineLayers) > order.index(BaseDatabaseWrapper):
            return "LoadBalancedMixin stands behind Django's DatabaseWrapper, so nothing of it is ever called"
        replaced = next((name for name in DOORS if _comes_from_others(cls, name)), None)
        return f"{replaced}() was replaced after the class was made, and is passed by" if replaced else ""

    @property
    def pglb_primary(self) -> str | None:
        """The primary of this alias' cluster; None where the engine is Django's own."""
        if self._pglb_means_itself or self.alias == NO_DB_ALIAS:
            return None
        return get_config().primary_of.get(self.alias)

    @contextmanager
    def pglb_as_djangos(self) -> Iterator[None]:
        """Let the engine be Django's own in here: what is sent means this very connection."""
        before, self._pglb_means_itself = self._pglb_means_itself, True
        try:
            with self.pglb_engine_at_work() if self._pglb_opens_by_engine and not before else _NOBODY:
                yield
        finally:
            self._pglb_means_itself = before

    def _pglb_open_by_engine(self, name: str | None) -> Any:
        """Return what the engine's own `_cursor()` has made of a raw cursor; the raw one itself if that is in Django's wrapper."""
        self._pglb_follow_primary()
        if get_config().prepares:
            self.ensure_connection()
            self.pglb_prepare()
        with self.pglb_as_djangos(), self.wrap_database_errors:
            if name is None:
                wrapped = type(self).cursor(self)
            elif any(door == "chunked_cursor" for door, _ in self.pglb_layers):
                wrapped = type(self).chunked_cursor(self)
            else:
                wrapped = self._cursor(name)
        return wrapped.cursor if type(wrapped) in (CursorWrapper, CursorDebugWrapper) else wrapped

    # --- What it was told ---

    def _pglb_follow_primary(self) -> None:
        """Take over what the primary's connection was told. What this one remembers of its session is void then."""
        primary = get_config().primary_of.get(self.alias)
        if primary is None or primary == self.alias:
            return
        told: Any = connection_to(primary)
        if told.pglb_layers != self.pglb_layers:
            return  # which the checks call an error
        told._pglb_note_told()
        routing, (times, unit) = current_scope().routing, self._pglb_followed
        has_news = times != told._pglb_times_told
        if not has_news and routing is not None and unit is not None and unit() is routing:
            return
        self._pglb_followed = told._pglb_times_told, None if routing is None else weakref.ref(routing)
        for place in self._pglb_said().keys() | self._pglb_at_first.keys() | told._pglb_told.keys():
            part, name = place
            # An object that both share says the same already.
            if not part or (part in self._pglb_parts and self._pglb_parts[part] is not told._pglb_parts.get(part)):
                _say(self._pglb_parts[part], name, told._pglb_told.get(place, self._pglb_at_first.get(place, MISSING)))
        if has_news and self._pglb_connects_by_engine:
            self.close()  # it may have been said while connecting

    @contextmanager
    def pglb_engine_at_work(self) -> Iterator[None]:
        """Let what changes in here be what the engine remembers, and not what it is told."""
        self._pglb_note_told()
        try:
            yield
        finally:
            self._pglb_seen = self._pglb_said()

    def _pglb_note_told(self) -> None:
        """Note what was changed since the engine's own code has last run on this connection."""
        said = self._pglb_said()
        news = {
            place: said.get(place, MISSING)
            for place in said.keys() | self._pglb_seen.keys()
            if _differ(said.get(place, MISSING), self._pglb_seen.get(place, MISSING))
        }
        if news:
            self._pglb_told.update(news)
            self._pglb_times_told += 1
            self._pglb_seen = said

    def _pglb_watch(self) -> None:
        """Note what this engine, which has just been made, says before anybody tells it something."""
        self._pglb_parts = {"": self}
        self._pglb_parts |= {name: value for (_, name), value in self._pglb_said().items() if _is_part(value)}
        self._pglb_at_first = self._pglb_seen = self._pglb_said()
        self._pglb_told = {}

    def _pglb_said(self) -> dict[Place, Any]:
        """Return the attributes of this connection that the engine's own code speaks of, and those of its parts."""
        attributes, engine = vars(self), cast("Any", type(self))
        said = {("", name): _kept(attributes[name]) for name in attributes.keys() & _names_of_engine(engine)}
        for part, thing in self._pglb_parts.items():
            if part:
                said.update({(part, name): _kept(value) for name, value in vars(thing).items() if value is not self})
        return said


def _kept(value: Any) -> Any:
    """Return what `value` is now: of what may be changed in its place, a copy."""
    return copy(value) if type(value) in CONTAINERS else value


def _differ(one: Any, other: Any) -> bool:
    return one is not other and not (type(one) is type(other) and type(one) in COMPARED and one == other)


def _say(thing: Any, name: str, value: Any) -> None:
    if value is not MISSING:
        setattr(thing, name, _kept(value))
    elif name in vars(thing):
        delattr(thing, name)


def _is_part(thing: Any) -> bool:
    """Say whether an engine may be told something by telling it to `thing`."""
    return not issubclass(type(thing), (type, FunctionType)) and _is_of_project(type(thing)) and hasattr(thing, "__dict__")


def _is_others(thing: Any) -> bool:
    """Say whether a class or a function is neither Django's nor ours."""
    return not (thing.__module__ or "").startswith(("builtins", "django.", "django_pglb."))


def _is_of_project(thing: Any) -> bool:
    """Say whether a class or a function may be what an engine leaves its telling to."""
    return _is_others(thing) and (thing.__module__ or "").partition(".")[0] not in LIBRARIES


def _comes_from_others(cls: type, name: str) -> bool:
    """Say whether the method `name` of `cls` is another engine's, and not one of ours in its place.

    What a monitoring library puts into Django's own classes is no engine's.
    """
    owner = next((each for each in cls.__mro__ if name in vars(each)), object)
    return _is_others(owner) and not hasattr(vars(owner)[name], "pglb_leads_to")


def _foreign(cls: type, name: str) -> Iterator[Any]:
    """Return the functions called `name` that other engines have brought in, from the outermost to the innermost."""
    for each in filter(_is_others, cls.__mro__):
        function = vars(each).get(name)
        function = getattr(function, "pglb_leads_to", function)
        if function is not None:
            yield function


def _at_door(cls: type, name: str, ask: Callable[..., Any] | None) -> Any:
    """Return what stands in for the method `name` of `cls`: ours answers, unless a cursor is being opened, or there is no cluster."""
    theirs = _theirs(cls, name)

    @wraps(theirs)
    def door(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.pglb_primary is None:
            home = self._pglb_home()
            return theirs(self, *args, **kwargs) if home is None else getattr(connections[home], name)(*args, **kwargs)
        return self.pglb_routed_cursor(*args, **kwargs) if ask is None else ask(self)

    return _marked(door, vars(cls).get(name))


def _as_djangos(cls: type, name: str) -> Any:
    theirs = _theirs(cls, name)

    @wraps(theirs)
    def step(self: Any) -> Any:
        with self.pglb_as_djangos():
            return theirs(self)

    return _marked(step, vars(cls).get(name))


def _watched_from_now_on(cls: type) -> Any:
    """Return what stands in for `__init__()`: when the last of them has returned, the engine is as it was made."""
    theirs = _theirs(cls, "__init__")

    @wraps(theirs)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **kwargs)
        if type(self).__init__ is init:
            self._pglb_watch()

    return _marked(init, vars(cls).get("__init__"))


def _theirs(cls: Any, name: str) -> Any:
    """Return the method `name` as `cls` would have it without us: its own, or what it inherits."""
    own = vars(cls).get(name)
    return own if own is not None else lambda self, *args, **kwargs: getattr(super(cls, self), name)(*args, **kwargs)


def _marked(function: Any, leads_to: Any) -> Any:
    function.pglb_leads_to = leads_to
    return function


@cache
def _names_of_engine(cls: type) -> frozenset[str]:
    """Return what the code of other engines calls an attribute of the connection, and neither Django nor ours does."""
    named: set[str] = set()
    seen: set[Any] = set()
    engines = [each for each in cls.__mro__ if _is_others(each)]
    found: list[Any] = list(engines)
    for each in engines:
        named.update(vars(each))
    while found:
        thing = found.pop()
        if thing in seen:
            continue
        seen.add(thing)
        for function in _functions_of(thing) if isinstance(thing, FunctionType) else _functions_in(thing):
            names = set(_names_in(function.__code__))
            named.update(names)
            # What it leaves the telling to.
            others = (function.__globals__.get(name) for name in names)
            found += [other for other in others if issubclass(type(other), (type, FunctionType)) and _is_of_project(other)]
    djangos = vars(DatabaseWrapper({}, NO_DB_ALIAS)).keys() | {"isolation_level"}
    return frozenset(
        name
        for name in named
        if name not in djangos
        and not name.startswith(("__", "pglb_", "_pglb_"))
        and not hasattr(DatabaseWrapper, name)
        and _is_data(cls, name)
    )


def _functions_in(cls: type) -> Iterator[FunctionType]:
    for member in vars(cls).values():
        yield from _functions_of(member)


def _functions_of(member: Any) -> Iterator[FunctionType]:
    """Return the functions that a member of a class consists of."""
    if not issubclass(type(member), MADE_OF_FUNCTIONS):
        return
    member = getattr(member, "pglb_leads_to", member)
    inside = (getattr(member, name, None) for name in ("__wrapped__", "fget", "fset", "func", "__func__"))
    for candidate in (member, *inside):
        if isinstance(candidate, FunctionType):
            yield candidate


def _is_data(cls: type, name: str) -> bool:
    member = getattr(cls, name, None)
    return not callable(member) and not hasattr(type(member), "__get__")


def _names_in(code: CodeType) -> Iterator[str]:
    """Return every name in `code`, and every text, since that may be one for `getattr()`."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names_in(constant)
