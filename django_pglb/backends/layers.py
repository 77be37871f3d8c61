"""What another engine does when a cursor is opened, below ours or above it: for tenants, for row-level security, for monitoring.

1. Such an engine overrides `_cursor()`, or `cursor()`, and tells the session there whose rows it may see. Ours hands out a cursor before
   it is known where its statement will run, and one cursor may come to another host.
2. So where an engine overrides one of the `DOORS`, ours answers at the door, and goes through the whole of it, as Django would, on each
   connection on which a statement is about to run. Meanwhile the engine is Django's own: whatever is sent means this very connection.
3. Such engines are told things (`connection.set_tenant(…)`), and only the primary's connection is. What its attributes say, a replica's
   must say, too, but for what opening a cursor sets itself: that is what each connection remembers of its own session.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, wraps
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, cast

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

from ..conf import get_config
from ..engine import connection_to
from .view_block import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOORS: dict[str, Any] = {
    "_cursor": None,  # ours
    "chunked_cursor": DatabaseWrapper.chunked_cursor,
    "cursor": BaseDatabaseWrapper.cursor,
}
"""How a cursor is asked for -> what asks ours for one."""

WRAPPERS = ("_prepare_cursor", "make_cursor", "make_debug_cursor")
"""What puts a wrapper of the engine's own around a raw cursor."""

STEPS = ("connect", "ensure_connection")
"""How a connection is made: what is sent meanwhile means this very connection."""

MISSING: Any = object()


class EngineLayers(Base):
    """Mix into a `DatabaseWrapper`: the part that lets other engines take part."""

    pglb_layers: frozenset[tuple[str, Any]] = frozenset()
    """What other engines do when a cursor is opened: name and function."""
    _pglb_opens_by_engine = False
    """Whether a raw cursor must be opened by the engine's own methods."""
    _pglb_set_by_opening: set[str]
    """What opening sets on the engine, as far as that was seen. Each class has its own."""
    _pglb_means_itself: bool
    _pglb_home: Callable[[], str | None]
    pglb_prepare: Callable[[], None]
    _pglb_at_first: dict[str, Any] | None = None
    """What a new connection's attributes were before anything was opened."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.pglb_layers = frozenset((name, function) for name in DOORS for function in _foreign(cls, name))
        cls._pglb_opens_by_engine = bool(cls.pglb_layers) or any(True for name in WRAPPERS for _ in _foreign(cls, name))
        cls._pglb_set_by_opening = set()
        for name, ask in DOORS.items():
            if _comes_from_others(cls, name):
                setattr(cls, name, _at_door(cls, name, ask))
        for name in STEPS:
            if _comes_from_others(cls, name):
                setattr(cls, name, _as_djangos(cls, name))

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
        if self._pglb_opens_by_engine and not before:
            said = self._pglb_said()
            if self._pglb_at_first is None:
                self._pglb_at_first = said
        else:
            said = None
        try:
            yield
        finally:
            self._pglb_means_itself = before
            if said is not None:
                now = self._pglb_said()
                self._pglb_set_by_opening.update(name for name, value in now.items() if value is not said[name])

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

    def _pglb_follow_primary(self) -> None:
        """Take over what the primary's connection was told. What this one remembers of its session is void then."""
        primary = get_config().primary_of.get(self.alias)
        if primary is None or primary == self.alias:
            return
        told: Any = connection_to(primary)
        if told.pglb_layers != self.pglb_layers:
            return  # which the checks call an error
        if self._pglb_at_first is None:
            self._pglb_at_first = self._pglb_said()
        said, set_by_opening = self._pglb_said(), self._pglb_set_by_opening | told._pglb_set_by_opening
        changed = {name: vars(told).get(name, MISSING) for name in said.keys() - set_by_opening}
        if any(value is not said[name] for name, value in changed.items()):
            self._pglb_say({**changed, **{name: self._pglb_at_first[name] for name in said.keys() & set_by_opening}})

    def _pglb_said(self) -> dict[str, Any]:
        """Return the attributes of this connection that the engine's own code speaks of."""
        attributes, engine = vars(self), cast("Any", type(self))
        return {name: attributes.get(name, MISSING) for name in _names_of_engine(engine)}

    def _pglb_say(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            if value is not MISSING:
                setattr(self, name, value)
            elif name in vars(self):
                delattr(self, name)


def _is_others(thing: Any) -> bool:
    """Say whether a class or a function is neither Django's nor ours."""
    return not (thing.__module__ or "").startswith(("builtins", "django.", "django_pglb."))


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
    for each in filter(_is_others, cls.__mro__):
        named.update(vars(each))
        for member in vars(each).values():
            for function in _functions_of(member):
                named.update(_names_in(function.__code__))
                # What it hands the connection to.
                helpers = (function.__globals__.get(name) for name in function.__code__.co_names)
                for helper in helpers:
                    if isinstance(helper, FunctionType) and _is_others(helper):
                        named.update(_names_in(helper.__code__))
    djangos = vars(DatabaseWrapper({}, NO_DB_ALIAS)).keys() | {"isolation_level"}
    return frozenset(
        name
        for name in named
        if name not in djangos
        and not name.startswith(("__", "pglb_", "_pglb_"))
        and not hasattr(DatabaseWrapper, name)
        and _is_data(cls, name)
    )


def _functions_of(member: Any) -> Iterator[FunctionType]:
    """Return the functions that a member of a class consists of."""
    member = getattr(member, "pglb_leads_to", member)
    for candidate in (member, getattr(member, "__wrapped__", None), getattr(member, "fget", None), getattr(member, "__func__", None)):
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
