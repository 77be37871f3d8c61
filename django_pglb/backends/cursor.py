"""The one cursor of the engines: decides where a statement runs, proves that a replica has reached the pointer, and fails over."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

from .. import placement, runtime
from ..context import current_scope
from ..core.decision import Decision, Reason
from ..core.retry import Verdict, judge
from ..core.statements import Kind
from ..engine import connection_to
from ..health.clock import now
from .proof import NotReached, position_of, prefixed, shown_position
from .sql import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.routing_session import ClusterSession

# query_canceled and lock_not_available: limits that the user set, whatever the state of the data.
TIMEOUTS = frozenset({"57014", "55P03"})

# Django's own cursor. The type stubs leave out its private methods, which are what must run below `execute_wrapper`s.
Plain: Any = CursorWrapper

T = TypeVar("T")


class RoutedCursor(CursorDebugWrapper):
    """A cursor on an alias of a cluster.

    `requested` is the connection that it was asked of, `db` the one that it is on. On a replica it opens nothing until a statement is
    known, so that a statement which belongs elsewhere never touches that host.
    """

    cursor: Any
    db: Any

    def __init__(self, cursor: Any, db: Any, name: str | None = None) -> None:
        super().__init__(cursor, db)
        self.requested = db
        self._primary = runtime.primary_of(db.alias) or db.alias
        self._name = name
        self._kind = Kind.READ
        self._is_bound = False
        self._failed_at = inf
        self._decision = Decision(db.alias, Reason.EXPLICIT)
        self._judged: Any = None
        self._statement: tuple[Any, Any] | None = None
        self._has_run = False
        self._rows_delivered = False
        self._is_closed = False

    def __getattr__(self, attr: str) -> Any:
        if self.cursor is None:
            self._open(self.requested)
        return super().__getattr__(attr)

    def close(self) -> None:
        self._is_closed = True
        if self.cursor is not None:
            self.cursor.close()

    # --- Statements ---

    def execute(self, sql: Any, params: Any = None) -> Any:
        self._judge(sql, params)
        try:
            return self._wrapper.execute(self, sql, params)
        finally:
            self._count()

    def executemany(self, sql: Any, param_list: Any) -> Any:
        self._judge(sql, param_list)
        try:
            return self._wrapper.executemany(self, sql, param_list)
        finally:
            self._count()

    def callproc(self, procname: str, params: Any = None, kparams: Any = None) -> Any:
        # A function may do anything.
        self._place(Kind.WRITE)
        try:
            with self._noting_unknown_outcome():
                return super().callproc(procname, params, kparams)
        finally:
            self._count()

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Do what psycopg's `Cursor.copy()` does, on the host where this statement belongs. Raises psycopg's own errors."""
        # In this order: what was copied in is committed when psycopg's context ends.
        with self._noting_unknown_outcome(), ExitStack() as stack:
            yield self._begin(statement, params, lambda: stack.enter_context(self.cursor.copy(statement, params, **kwargs)))

    def stream(self, query: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Do what psycopg's `Cursor.stream()` does, on the host where this statement belongs. Raises psycopg's own errors."""

        def begin() -> tuple[Iterator[Any], list[Any]]:
            rows = self.cursor.stream(query, params, **kwargs)
            return rows, list(islice(rows, 1))

        with self._noting_unknown_outcome():
            rest, first = self._begin(query, params, begin)
            yield from first
            yield from rest

    @property
    def _wrapper(self) -> type[CursorWrapper]:
        return CursorDebugWrapper if self.db.queries_logged else CursorWrapper

    # --- Where ---

    def _judge(self, sql: Any, params: Any) -> None:
        """Open a raw cursor where `sql` belongs."""
        self._is_bound = placement.is_next_bound(self._primary)
        self._judge_text(sql, params)

    def _judge_text(self, sql: Any, params: Any) -> None:
        self._judged = sql
        self._place(kind_of(sql, params, self.requested))

    def _place(self, kind: Kind) -> None:
        """Open a raw cursor where a statement of this kind belongs."""
        self._kind = kind
        self._failed_at = inf
        if self._primary == self.requested.alias:
            self._decision = placement.place_on_primary(self._primary, kind)
            self._open(self.requested)
        elif self.requested.in_atomic_block and self.requested.pglb_mirror_of is None:
            # The caller opened a transaction on this very replica: its statements cannot go elsewhere.
            # On a mirror it was the test case, and what the test has written is in the primary's transaction.
            self._decision = placement.place_in_replica_transaction(self.requested.alias)
            self._open(self.requested)
        else:
            self._open_placed(placement.place_on_replica(self.requested.alias, kind, is_bound=self._is_bound))

    def _begin(self, statement: Any, params: Any, begin: Callable[[], T]) -> T:
        """Return what `begin` returns on the host where `statement` belongs, which cannot share a message with its proof.

        Raises psycopg's errors for what `begin` does, as Django leaves it to psycopg.
        """
        self._judge(statement, params)

        def run() -> T:
            self._prove_apart()
            with self.db.wrap_database_errors:
                return begin()

        try:
            with self.debug_sql(statement) if self.db.queries_logged else nullcontext():
                return self._with_failover(run)
        except DatabaseError as error:
            raise error.__cause__ or error from None
        finally:
            self._count()

    def _count(self) -> None:
        """Count the statement where it was answered in the end."""
        placement.count(self._primary, self._decision)

    def _open_placed(self, decision: Decision) -> None:
        """Open a raw cursor where `decision` says, or on the next host if that one cannot be reached."""
        while True:
            self._decision = decision
            try:
                self._open(self.requested if decision.alias == self.requested.alias else connection_to(decision.alias))
            except DatabaseError as error:
                if decision.alias == self._primary:
                    raise
                decision = self._after_failure(decision.alias, error)
            except AssertionError:
                # So does a test case forbid aliases in threads that it did not start; a mirror is the primary anyway.
                if connection_to(decision.alias).pglb_mirror_of is None:
                    raise
                decision = self._exclude(decision.alias, Reason.FAILOVER)
            else:
                return

    def _open(self, db: Any) -> None:
        if self._is_closed:
            raise InterfaceError("the cursor is closed")
        if self.cursor is not None and self.db is db:
            if self._name is None and self.cursor.connection is db.connection:
                return
            self._discard()
        # A cursor on another host is kept until there is a new one: Django's query log looks at it when this fails.
        cursor = db.pglb_open_cursor(self._name)
        self._discard()
        self.cursor, self.db = cursor, db
        self._has_run = self._rows_delivered = False

    def _discard(self) -> None:
        if self.cursor is None:
            return
        try:
            self.cursor.close()
        except psycopg.Error:
            # The connection is broken, which whoever discards this cursor knows already.
            return

    @property
    def _on_replica(self) -> bool:
        return bool(self.db.alias != self._primary)

    # --- Running ---

    def _execute(self, sql: Any, params: Any, *ignored_wrapper_args: Any) -> Any:
        if sql is not self._judged:
            # One of Django's `execute_wrapper`s has put another statement in its place.
            self._judge_text(sql, params)
        self._statement = (sql, params)
        if not self._on_replica:
            self._has_run = True
            return self._run_on_primary(Plain._execute, sql, params)
        return self._with_failover(lambda: self._execute_here(sql, params))

    def _executemany(self, sql: Any, param_list: Any, *ignored_wrapper_args: Any) -> Any:
        if sql is not self._judged:
            self._judge_text(sql, param_list)
        if not self._on_replica:
            return self._run_on_primary(Plain._executemany, sql, param_list)
        every = list(param_list)
        return self._with_failover(lambda: self._executemany_here(sql, every))

    def _run_on_primary(self, run: Callable[[Any, Any, Any], Any], sql: Any, params: Any) -> Any:
        with self._noting_unknown_outcome():
            return run(self, sql, params)

    @contextmanager
    def _noting_unknown_outcome(self) -> Iterator[None]:
        """Note if a write is under way in here whose answer never comes."""
        try:
            yield
        except (DatabaseError, psycopg.Error):
            # In a transaction nothing can have been committed by this statement.
            if self._kind is Kind.WRITE and not self.db.in_atomic_block and self.db.pglb_is_lost:
                self.db.pglb_note_unknown_outcome()
            raise

    def _execute_here(self, sql: Any, params: Any) -> Any:
        self._has_run = True
        if not self._on_replica:
            return self._run_on_primary(Plain._execute, sql, params)
        flying = runtime.get_runtime().in_flight[self.db.alias]
        flying.append(None)
        try:
            if self._unproved_lsn() is None:
                return Plain._execute(self, sql, params)
            if self._can_share_message():
                return self._execute_proved(sql, params)
            self._prove_apart()
            return Plain._execute(self, sql, params)
        finally:
            flying.pop()

    def _executemany_here(self, sql: Any, param_list: Any) -> Any:
        if not self._on_replica:
            return self._run_on_primary(Plain._executemany, sql, param_list)
        self._prove_apart()
        return Plain._executemany(self, sql, param_list)

    # --- Failing over ---

    def _with_failover(self, run: Callable[[], T]) -> T:
        """Return what `run` returns on the first host that can answer: this one, the next replicas, the primary."""
        while True:
            on_replica, fixed = self._on_replica, self.db.in_atomic_block or self._rows_delivered
            try:
                return run()
            except NotReached as behind:
                if fixed:
                    raise OperationalError(placement.CANNOT_LEAVE.format(self.db.alias)) from behind
                self._open_placed(self._after_short_proof())
            except DatabaseError as error:
                if fixed or not on_replica:
                    raise
                self._open_placed(self._after_failure(self.db.alias, error))

    def _cluster(self) -> ClusterSession | None:
        routing = current_scope().routing
        return None if routing is None else routing.cluster(self._primary)

    def _after_failure(self, alias: str, error: DatabaseError) -> Decision:
        """Return who answers now that `alias` has failed with `error`. Raises `error` if it is the caller's own."""
        cause = error.__cause__
        sqlstate: str | None = getattr(cause, "sqlstate", None)
        lost = connection_to(alias).pglb_is_lost
        verdict = judge(sqlstate, connection_lost=lost)
        if verdict is Verdict.RAISE:
            raise error
        self._failed_at = min(self._failed_at, now())
        is_old = lost and self._is_older_than_its_host(alias)
        if lost:
            connection_to(alias).close()
        if is_old:
            return self._decision
        if verdict is Verdict.HOST_OUT:
            placement.report_failure(alias, f"failed a read ({sqlstate or type(cause or error).__name__})")
        if verdict is Verdict.WAS_WRITE:
            self._kind = Kind.WRITE
            return placement.place_write(self._primary)
        cluster = self._cluster()
        if cluster is not None:
            cluster.exclude(alias, Reason.FAILOVER)
            if verdict is Verdict.PRIMARY:
                cluster.stay_on_primary(Reason.FAILOVER)
        return placement.place_again(self._primary, Reason.FAILOVER, is_bound=self._is_bound)

    def _is_older_than_its_host(self, alias: str) -> bool:
        """Say whether a connection broke because it had outlived a restart of its host, which has been well since.

        Each thread keeps such a connection until it uses it, and a pool several; none of them may take the host out again.
        A connection that was made since this statement first failed will tell.
        """
        db = connection_to(alias)
        is_ours = db is self.db and self._decision.alias == alias
        is_old = db.pglb_has_broken and db.pglb_opened_at < self._failed_at
        return is_ours and is_old and placement.has_been_well_since(alias, db.pglb_opened_at)

    def _after_short_proof(self) -> Decision:
        """Return who answers now that this replica has shown to be behind."""
        return self._exclude(self.db.alias, Reason.BEHIND)

    def _exclude(self, alias: str, reason: Reason) -> Decision:
        """Return who answers without `alias`."""
        cluster = self._cluster()
        if cluster is not None:
            cluster.exclude(alias, reason)
        return placement.place_again(self._primary, is_bound=self._is_bound)

    # --- Proving ---

    def _unproved_lsn(self) -> int | None:
        """Return the position that this host must still prove before it may answer, if any."""
        if self._decision.reason is Reason.STALE_ALLOWED or self.db.pglb_mirror_of is not None:
            return None
        cluster = self._cluster()
        pointer = cluster.bound.pointer if cluster is not None else None
        if cluster is None or pointer is None:
            return None
        replica = self.db.pglb_replica()
        proved = -1 if replica is None or replica.pooled else cluster.proofs.get(self.db.pglb_serial, -1)
        return pointer.lsn if proved < pointer.lsn else None

    def _can_share_message(self) -> bool:
        return self._name is None and isinstance(self.cursor, psycopg.ClientCursor) and self.db.pglb_shares_messages

    def _execute_proved(self, sql: Any, params: Any) -> Any:
        """Run the position check and the statement in one message. Raises `NotReached` if the position is short."""
        try:
            Plain._execute(self, prefixed(sql), params)
        except DatabaseError as error:
            if not self._may_be_due_to_old_state(error):
                raise
        else:
            with self.db.wrap_database_errors:
                position, read_committed = self.cursor.fetchone()
                if read_committed:
                    self._accept(position_of(position))
                    self.cursor.nextset()
                    return self.cursor
            self.db.pglb_shares_messages = False
        self._prove_apart()
        return Plain._execute(self, sql, params)

    def _may_be_due_to_old_state(self, error: DatabaseError) -> bool:
        """Say whether a statement that failed beside its proof must be proved and run once more, to tell whose failure it is."""
        sqlstate = getattr(error.__cause__, "sqlstate", None)
        return (
            not self.db.pglb_is_lost
            and not self.db.in_atomic_block
            and sqlstate not in TIMEOUTS
            and judge(sqlstate, connection_lost=False) is Verdict.RAISE
        )

    def _prove_apart(self) -> None:
        """Check the position in a statement of its own, before the one that it is for. Raises `NotReached` if it is short."""
        if not self._on_replica or self._unproved_lsn() is None:
            return
        with self.db.wrap_database_errors:
            shown = shown_position(self.db.connection)
        self._accept(shown)

    def _accept(self, shown: int) -> None:
        """Note the position that this connection has shown. Raises `NotReached` if it is short of the pointer."""
        wanted = self._unproved_lsn()
        if wanted is not None and shown < wanted:
            raise NotReached
        cluster = self._cluster()
        if cluster is not None:
            cluster.prove(self.db.alias, self.db.pglb_serial, shown)

    # --- Fetching ---
    # A client-side cursor holds its whole result by now; a named one meets the server again with every fetch.

    def fetchone(self) -> Any:
        return self._fetch(lambda: self.cursor.fetchone())

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._fetch(lambda: self.cursor.fetchmany(*args, **kwargs))

    def fetchall(self) -> Any:
        return self._fetch(lambda: self.cursor.fetchall())

    def __iter__(self) -> Iterator[Any]:
        rows: Iterator[Any] = iter(())

        def first() -> Any:
            nonlocal rows
            rows = iter(self.cursor)
            return next(rows, None)

        row = self._fetch(first)
        while row is not None:
            yield row
            with self.db.wrap_database_errors:
                row = next(rows, None)

    def _fetch(self, fetch: Callable[[], Any]) -> Any:
        if self._name is None or self._rows_delivered or self._statement is None or not self._on_replica:
            if self.cursor is None:
                self._open(self.requested)
            with self.db.wrap_database_errors:
                return fetch()
        rows = self._with_failover(lambda: self._first_fetch(fetch))
        self._rows_delivered = True
        return rows

    def _first_fetch(self, fetch: Callable[[], Any]) -> Any:
        """Fetch, after running the statement again if the host has changed under it."""
        if not self._has_run and self._statement is not None:
            self._execute_here(*self._statement)
        with self.db.wrap_database_errors:
            return fetch()
