"""`PREPARE`: what a site tells each session before a unit of work's first statement on it, and how the next one does not inherit that.

1. The raw connection remembers for whom it was told something, and what: it may outlive the unit of work, in a thread or in a pool.
2. Before it is told anything for another one, all settings that were made are reset. What cannot be reset, because it is no setting or
   was not understood, goes with the connection: that is closed.
3. What was told inside a transaction is gone after a rollback, and what had been reset there may be back. So it is all done again.
4. Outside a unit of work nobody knows when the next one begins, so it is done before each statement.
"""

from __future__ import annotations

import sys
import time
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.utils.module_loading import import_string
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Identifier

from ..conf import get_config
from ..context import current_scope
from ..core.session_state import ROLES, settings_made
from .proof import outside_transaction
from .view_block import ViewBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ..core.routing_session import RoutingSession

PREPARED = "_pglb_prepared"
# What Django itself sets on a connection, and a reset would take away as well.
DJANGOS = ROLES | {"timezone"}
IN_TRANSACTION = (
    "PREPARE has told {} something that cannot be reset, and a transaction is open there: tell it settings only, or end the transaction"
)
NOT_AWAITED = "PREPARE: {} is a coroutine function, which nobody would await: name a plain one"
IN_USE = (
    "PREPARE has told {} something that cannot be reset, and the unit of work that it was for has changed its session and goes on:"
    " tell it settings only"
)
BEING_IMPORTED = "PREPARE: the module of {}, which is being imported, must run no query meanwhile: no session can be prepared for it."
# What a thread waits for another one that imports the module.
LONGEST_IMPORT = 5.0

_is_preparing: ContextVar[bool] = ContextVar("django_pglb_is_preparing", default=False)


class Prepared(NamedTuple):
    """What a connection was told last."""

    unit: weakref.ref[RoutingSession] | None = None
    """For whom; None if that is void."""
    settings: frozenset[str] | None = frozenset()
    """Which settings it may still have from it; None: more than can be known."""
    in_transaction: bool = False


NOTHING = Prepared()


class PreparedSessions(ViewBlock):
    """Mix into a `DatabaseWrapper`: the part that lets the site prepare a session."""

    pglb_as_djangos: Callable[[], AbstractContextManager[None]]
    pglb_carries_state: bool

    def pglb_prepare(self) -> None:
        """Tell the connection that is open what belongs to this unit of work, unless it was told; another one's is taken away first.

        May close the connection. Raises Django's database errors, and whatever the site's callable raises.
        """
        path = get_config().prepares.get(self.alias)
        if path is None or self.connection is None or _is_preparing.get():
            return
        routing = current_scope().routing
        before: Prepared = getattr(self.connection, PREPARED, NOTHING)
        if routing is not None and before.unit is not None and before.unit() is routing:
            return
        if self.connection.info.transaction_status == TransactionStatus.INERROR:
            return  # it answers nothing until somebody rolls back
        token = _is_preparing.set(True)
        try:
            if before.settings is None:
                if self.pglb_carries_state and _goes_on(before):
                    raise OperationalError(IN_USE.format(self.alias))
                self._pglb_part_with_session()
                before = NOTHING
            with self.pglb_as_djangos(), self.wrap_database_errors:
                self._pglb_prepare_for(routing, before, path)
        finally:
            _is_preparing.reset(token)

    def _pglb_part_with_session(self) -> None:
        """Let a new connection take the place of the one that is open."""
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            raise OperationalError(IN_TRANSACTION.format(self.alias))
        autocommit = self.autocommit
        # A block may be open in which nothing has happened yet: it goes on with the new one.
        with self.pglb_as_djangos(), self._pglb_outside_block():
            # Closed itself, or a pool would hand it on.
            self.connection.close()
            self.close()
            self.ensure_connection()
            if self.autocommit != autocommit:
                self.pglb_set_autocommit(autocommit, force=True, is_views=False)

    def _pglb_prepare_for(self, routing: RoutingSession | None, before: Prepared, path: str) -> None:
        raw = self.connection
        # In case it does not come to an end: then nothing is known.
        setattr(raw, PREPARED, Prepared(settings=None))
        with outside_transaction(raw) as is_outside:
            if before.settings:
                self._pglb_reset(before.settings)
            with _recording(raw) as texts:
                returned = _callable(path)(raw)
            if iscoroutine(returned):
                returned.close()
                raise ImproperlyConfigured(NOT_AWAITED.format(path))
            is_undone_by_rollback = not is_outside or raw.info.transaction_status != TransactionStatus.IDLE
        settings = _settings_in(texts)
        if settings is not None and is_undone_by_rollback:
            settings |= before.settings or frozenset()
        unit = None if routing is None else weakref.ref(routing)
        setattr(raw, PREPARED, Prepared(unit, settings, is_undone_by_rollback))

    def _pglb_reset(self, settings: frozenset[str]) -> None:
        raw = self.connection
        # The role first: another one may lack the right to reset the rest.
        ordered = sorted(settings, key=lambda name: (name not in ROLES, name))
        raw.execute(SQL("; ").join([_reset(name) for name in ordered]))
        if not settings.isdisjoint(DJANGOS):
            self._configure_connection(raw)

    def pglb_void_prepared(self, *, also_outside: bool = False) -> None:
        """Note that a transaction was rolled back: what the session was told in it is gone, and what it forgot in it may be back."""
        prepared: Prepared | None = getattr(self.connection, PREPARED, None)
        if prepared is not None and (prepared.in_transaction or also_outside):
            setattr(self.connection, PREPARED, prepared._replace(unit=None))


def _goes_on(prepared: Prepared) -> bool:
    """Say whether the unit of work that a connection was prepared for is not over."""
    unit = None if prepared.unit is None else prepared.unit()
    return unit is not None and not unit.has_ended


def _callable(path: str) -> Callable[[Any], object]:
    """Return what `path` names. Raises `ImproperlyConfigured` rather than wait for good for a module that itself waits for this query."""
    module, give_up_at = sys.modules.get(path.rpartition(".")[0]), time.monotonic() + LONGEST_IMPORT
    # As Django's own `cached_import()` asks.
    while getattr(getattr(module, "__spec__", None), "_initializing", False):
        if time.monotonic() > give_up_at:
            raise ImproperlyConfigured(BEING_IMPORTED.format(path))
        time.sleep(LONGEST_IMPORT / 100)
    found: Callable[[Any], object] = import_string(path)
    return found


def _reset(name: str) -> SQL | Any:
    if name in ROLES:
        return SQL("RESET ROLE" if name == "role" else "RESET SESSION AUTHORIZATION")
    return SQL("RESET {}").format(Identifier(*name.split(".")))


@contextmanager
def _recording(raw: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """Yield the texts of what is sent in here by the cursors of `raw`, as it was sent."""
    texts: list[str] = []
    factory: Any = raw.cursor_factory
    raw.cursor_factory = _recorder(factory)
    setattr(raw, _SENT, texts)
    try:
        yield texts
    finally:
        raw.cursor_factory = factory


_SENT = "_pglb_sent"


@cache
def _recorder(factory: Any) -> Any:
    class Recorder(factory):  # type: ignore[misc]  # whatever class the site has chosen
        def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
            _record(self.connection, query, params)
            return super().execute(query, params, **kwargs)

        def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
            every = list(params_seq)
            for params in every:
                _record(self.connection, query, params)
            return super().executemany(query, every, **kwargs)

        def stream(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
            _record(self.connection, query, params)
            return super().stream(query, params, **kwargs)

        def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:
            _record(self.connection, statement, params)
            return super().copy(statement, params, **kwargs)

    return Recorder


def _record(connection: psycopg.Connection[Any], query: Any, params: Any) -> None:
    text = psycopg.ClientCursor(connection).mogrify(query, params)
    getattr(connection, _SENT).append(text)


def _settings_in(texts: list[str]) -> frozenset[str] | None:
    """Return the settings that `texts` make; None if they may do more."""
    made = [settings_made(text) for text in texts]
    return None if None in made else frozenset().union(*(names for names in made if names))
