"""Units of work outside requests, and what code can tell the unit of work that it is in."""

from __future__ import annotations

from asyncio import (
    _get_running_loop,  # the documented one raises where there is none
    shield,
)
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections

from . import pointers, runtime
from .context import current_scope, decorated, open_inner, routing_of
from .core.asker import NO_REQUEST
from .core.routing_session import UNBOUND, Bound, RoutingSession
from .forks import begin_anew_if_forked
from .placement import route_read
from .stores.carried import sign, unsign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest

    from .context import ScopeManager
    from .core.asker import Asker
    from .core.routing_session import Identity

P = ParamSpec("P")
R = TypeVar("R")


class StatedIdentities:
    """The identities that the caller of `routing_session` stated, and what an exported pointer carries."""

    def __init__(self, identities: Iterable[Identity], carried: Mapping[str, Bound]) -> None:
        self._identities = tuple(identities)
        self._carried = carried

    def known(self) -> tuple[Identity, ...]:
        return self._identities

    revealed = to_bind = known

    def ended(self) -> tuple[Identity, ...]:
        return ()

    def acts_for_somebody(self) -> bool:
        return bool(self._identities)

    def asker(self) -> Asker:
        return NO_REQUEST

    def is_settled(self) -> bool:
        return True

    is_complete = is_settled

    def carried(self, primary: str) -> Bound:
        return self._carried.get(primary, UNBOUND)

    def add(self, kind: str, value: str) -> None:
        self._identities = (*self._identities, (kind, value))


class routing_session:  # noqa: N801 - used like a function
    """Open a unit of work outside a request: reads in here go to replicas, by the pointers of `identity`.

    `identity` is one (kind, value), as in `("user", str(user.pk))`, or several. What is written in here is saved under them at the end,
    also when the block raises. `pointer` is the text that `export_pointer()` returned elsewhere; a forged or expired one raises
    `ValueError`. Context manager and decorator, sync and async. Opened inside another unit of work,
    it must see what that one must see, and what it writes that one has written.
    """

    def __init__(self, *, identity: Identity | Iterable[Identity] = (), pointer: str | None = None) -> None:
        if not isinstance(pointer, str | None):
            raise TypeError(f"pointer takes the text that export_pointer() returned, not {type(pointer).__name__}")
        self._identity = _listed(identity)
        self._pointer = pointer
        self._entered: list[tuple[ExitStack, RoutingSession, RoutingSession | None]] = []

    def __enter__(self) -> RoutingSession:
        begin_anew_if_forked()
        routing, outer = RoutingSession(StatedIdentities(self._identity, self._read_pointer())), current_scope().routing
        if outer is not None:
            routing.inherit(outer)
        stack = ExitStack()
        for manager in self._opening(routing):
            stack.enter_context(manager)
        self._entered.append((stack, routing, outer))
        return routing

    def __exit__(self, *exc_info: object) -> None:
        with self._closing() as routing:
            if self._must_save(routing):
                self._save(routing)

    async def __aenter__(self) -> RoutingSession:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        with self._closing() as routing:
            # The way to another thread is not there for every generator that is closed late.
            if self._must_save(routing):
                # Whoever cancels ends the wait for a thread, and not what is to be done there.
                await shield(sync_to_async(self._save)(routing))

    def _must_save(self, routing: RoutingSession) -> bool:
        # Also one that was opened for nobody may have made a token, which somebody will come with.
        if routing.identities.known() and pointers.must_save(routing):
            return True
        # A task that outlives its request opens units of work inside one that has ended.
        outer = routing.outer
        return outer is not None and outer.is_saved_late and any(pointers.must_save(unit) for unit in (outer, *outer.around()))

    def _save(self, routing: RoutingSession) -> None:
        if routing.identities.known():
            pointers.save_bounds(routing)
        if routing.outer is not None:
            pointers.save_late(routing.outer)

    @contextmanager
    def _closing(self) -> Iterator[RoutingSession]:
        stack, routing, outer = self._entered.pop()
        routing.end()
        if outer is not None:
            routing.bequeath(outer)
        with stack:
            yield routing

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return decorated(function, self._fresh)

    def _fresh(self) -> routing_session:
        return routing_session(identity=self._identity, pointer=self._pointer)

    def _opening(self, routing: RoutingSession) -> Iterable[ScopeManager]:
        """Return what makes `routing` the unit of work, in the order of entering."""
        return [open_inner(routing)]

    def _read_pointer(self) -> dict[str, Bound]:
        if self._pointer is None:
            return {}
        return unsign(self._pointer, max_age=runtime.get_runtime().config.longest_pointer_seconds)


def export_pointer() -> str:
    """Return, as a signed text, what whoever continues this unit of work elsewhere must see.

    Give it to `routing_session(pointer=…)` in another process or service with the same `SECRET_KEY`. Call it after the commit;
    one round trip to the primary if this unit of work has used it since the last call, so in async code through `sync_to_async`.
    Outside a routing session it carries nothing.
    """
    routing = current_scope().routing
    return sign({} if routing is None else pointers.bounds_to_export(routing))


def mark_write(using: str = DEFAULT_DB_ALIAS) -> None:
    """Note that something wrote to the cluster of `using` where the cursor could not see it: another process, a raw connection.

    Raises `ValueError` if `using` belongs to no cluster. Does nothing outside a routing session. After the end of one, as in a task that
    outlives its request, it saves at once; not in an event loop, so call it there through `sync_to_async`.
    """
    primary = _primary_of(using)
    pointers.note_write(primary, may_be_committed=True)
    runtime.get_runtime().note_use(primary)
    if _get_running_loop() is None:
        pointers.note_end_of_write(primary)


def stick(request: HttpRequest, kind: str, value: str) -> None:
    """Bind one more identity to `request`: an API key's owner, a tenant. Its earlier writes are seen from now on, by everybody who has it.

    Call it before the first read that must see them. The pair goes into the store as a keyed hash only.
    """
    routing = routing_of(request)
    if routing is not None:
        pointers.bind(routing, (kind, str(value)))


def connection_for_read(primary: str = DEFAULT_DB_ALIAS) -> BaseDatabaseWrapper:
    """Return the connection that a read of this unit of work goes to, for raw SQL that may run on a replica.

    Use it for the next statement only: a write in between changes the answer. Raises `ValueError` if `primary` belongs to no cluster.
    """
    return connections[route_read(_primary_of(primary)).alias]


def _primary_of(alias: str) -> str:
    primary = runtime.primary_of(alias)
    if primary is None:
        if not runtime.get_runtime().config.enabled:
            return alias
        raise ValueError(f"{alias!r} belongs to no cluster: it is neither a key of PGLB nor in its REPLICAS")
    return primary


def _listed(identity: Identity | Iterable[Identity]) -> tuple[Identity, ...]:
    pairs = tuple(identity)
    if len(pairs) == 2 and isinstance(pairs[0], str):
        pairs = ((pairs[0], pairs[1]),)  # type: ignore[assignment]  # one pair, which looks like two items
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"identity takes a (kind, value) pair or several, not {pair!r}")
    return tuple((kind, str(value)) for kind, value in pairs)
