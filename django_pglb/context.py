"""The routing session and the overrides that are in force here, and the words that change them.

They live in a `ContextVar`, so threads and tasks see their own, and code run by `sync_to_async` or awaited sees its caller's.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .core.policy import Scope
from .core.routing_session import RoutingSession
from .forks import begin_anew_if_forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest

    from .core.decision import DecisionCount

P = ParamSpec("P")
R = TypeVar("R")

_scope: ContextVar[Scope] = ContextVar("django_pglb_scope", default=Scope())  # noqa: B039 - a NamedTuple is immutable

current_scope = _scope.get


class ScopeManager:
    """Changes the scope for a block or a function.

    Use it as `with`, `async with`, or as a decorator of a function, sync or async. Decorated functions get a fresh manager per call,
    so they may be re-entered from any number of threads and tasks.
    """

    def __init__(self, change: Callable[[Scope], Scope]) -> None:
        self._change = change
        self._entered: list[tuple[Scope, Scope]] = []

    def __enter__(self) -> Scope:
        before = _scope.get()
        # `_replace()` costs more than all the rest of this.
        scope = Scope(*self._change(before)[:-1], before)
        self._entered.append((scope, before))
        _scope.set(scope)
        return scope

    def __exit__(self, *exc_info: object) -> None:
        scope, before = self._entered.pop()
        # Not `ContextVar.reset`: a generator that was suspended inside may be closed much later, in another unit of work, whose scope is
        # none of its business; and this block may end while such a generator, opened in it, is still suspended.
        if _is_within(_scope.get(), scope):
            _scope.set(before)

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__(*exc_info)

    def _fresh(self) -> ScopeManager:
        return type(self)(self._change)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return decorated(function, self._fresh)


def decorated(function: Callable[P, R], fresh: Callable[[], Any]) -> Callable[P, R]:
    """Return `function` run inside a manager that `fresh` makes anew for each call; async functions are awaited inside it.

    Raises `TypeError` for a class and for a generator function.
    """
    if isinstance(function, type):
        raise TypeError(f"{function.__qualname__} is a class: decorate its method, as with method_decorator(…, name='dispatch')")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # A block inside it would be no better: what it changes is in force for whoever consumes it, between two items.
        raise TypeError(
            f"{function.__qualname__} is a generator, which runs after its call has returned: put the code that consumes it into a block"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaiting(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with fresh():
                return await function(*args, **kwargs)

        return awaiting  # type: ignore[return-value]  # R is the coroutine, which mypy cannot see through iscoroutinefunction

    @functools.wraps(function)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        with fresh():
            return function(*args, **kwargs)

    return calling


def use_primary() -> ScopeManager:
    """Read from the primary in here, with reason `forced_primary`.

    Context manager and decorator, sync and async. Inside `use_replicas()` it wins, and the other way round: the innermost does.
    """
    return ScopeManager(lambda scope: _opened(scope)._replace(forced="primary"))


def use_replicas() -> ScopeManager:
    """Read from any online replica in here: stale is fine, pointers and earlier writes are ignored (reason `stale_allowed`).

    A transaction that is open on the primary still keeps its reads, and the request's session and user are read by the pointer:
    a stale one would sign the visitor out. Context manager and decorator, sync and async.
    """
    return ScopeManager(lambda scope: _opened(scope)._replace(forced="replicas"))


def ignore_writes() -> ScopeManager:
    """Writes in here bind nobody: no pointer is saved for them and later reads need not see them.

    Meant for bookkeeping such as view counters. Context manager and decorator, sync and async.
    """
    return ScopeManager(lambda scope: scope._replace(ignore_writes=True))


def heed_writes() -> ScopeManager:
    """Writes in here count, whatever `ignore_writes()` around it says."""
    return ScopeManager(lambda scope: scope._replace(ignore_writes=False))


def read_related_to(primary: str) -> ScopeManager:
    """Reads in here follow a relation of objects that were loaded from `primary`."""
    return ScopeManager(lambda scope: scope._replace(related_to=primary))


def replica_reads() -> ScopeManager:
    """Read by the pointer in here although the request's method is unsafe: GraphQL queries, search forms.

    Outside a request it only opens a routing session. Context manager and decorator, sync and async.
    """

    def change(scope: Scope) -> Scope:
        scope = _opened(scope)
        # The request's, too, where this is in a unit of work inside it: it is the request that an unsafe method says something of.
        for unit in () if scope.routing is None else (scope.routing, *scope.routing.around()):
            unit.replica_reads = True
        return scope._replace(replica_reads=True)

    return ScopeManager(change)


def reading_by_pointer() -> ScopeManager:
    """Read by the pointer in here, although the request's method is unsafe: what is read is not going to be changed.

    Unlike `replica_reads()` this says nothing of what the request does.
    """
    return ScopeManager(lambda scope: scope._replace(replica_reads=True))


def open_routing(routing: RoutingSession | None) -> ScopeManager:
    """Make `routing` the unit of work in here, with no overrides in force. None closes whatever is open."""
    return ScopeManager(lambda scope: Scope(routing=routing))


def open_inner(routing: RoutingSession) -> ScopeManager:
    """Make `routing` the unit of work in here; overrides that are in force stay in force."""
    return ScopeManager(lambda scope: scope._replace(routing=routing))


class SuspendedScope:
    """The scope of code that runs in steps, as a generator does: what one step has changed is in force in the next, and only there."""

    def __init__(self, routing: RoutingSession) -> None:
        self._kept = Scope(routing=routing, in_step=True)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Run a step in here. For one step at a time."""
        before = _scope.get()
        _scope.set(self._kept)
        try:
            yield
        finally:
            self._kept = _scope.get()
            _scope.set(before)


def open_request(request: HttpRequest, routing: RoutingSession) -> None:
    """Let `routing_of` find the unit of work of `request`, for as long as that goes on.

    Weakly: it knows its request, and a circle would keep both, with all that they refer to, until the garbage collector comes by.
    """
    request._pglb_routing = weakref.ref(routing)  # type: ignore[attr-defined]


def was_opened(request: HttpRequest) -> bool:
    """Say whether `LoadBalancingMiddleware` has opened a unit of work for `request`, which may have ended since."""
    return hasattr(request, "_pglb_routing")


def routing_of(request: HttpRequest) -> RoutingSession | None:
    """Return the unit of work of `request`; None if it has ended, or `LoadBalancingMiddleware` has not seen it."""
    found: weakref.ref[RoutingSession] | None = getattr(request, "_pglb_routing", None)
    return None if found is None else found()


def current_decisions() -> tuple[DecisionCount, ...]:
    """Return which alias answered how many statements of the current unit of work, and why, in order of first use.

    Empty where no routing session is open.
    """
    routing = _scope.get().routing
    return () if routing is None else routing.decisions()


def _is_within(inner: Scope | None, scope: Scope) -> bool:
    while inner is not None and inner is not scope:
        inner = inner.outer
    return inner is scope


def _opened(scope: Scope) -> Scope:
    if scope.routing is not None:
        return scope
    begin_anew_if_forked()
    return scope._replace(routing=RoutingSession())
