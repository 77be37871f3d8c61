"""The one cursor of the engines: decides where a statement runs, and fails over."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from math import inf
from operator import methodcaller
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from django.apps import apps
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.backends import utils
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from psycopg.pq import TransactionStatus

from .. import placement, pointers, runtime
from ..conf import get_config
from ..core.decision import Decision, Reason
from ..core.retry import CANCELLED_BY_REPLAY, OnPrimary, Phase, Verdict, judge, judge_on_primary
from ..core.statements import Kind, classify
from ..engine import connection_to
from ..health.clock import now
from ..health.trouble import is_cancelled_by_replay
from .carrying import CarryingCursor, Plain
from .errors import HostIsOut, ReadTimedOut
from .proof import IN_HOT_STANDBY, NotReached
from .raw import RawCursor
from .sql import is_local_setting, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from ..core.lease import Lease

T = TypeVar("T")


def if_djangos(function: Any) -> Any:
    """Return `function`; None if it is not Django's own. Monitoring libraries put theirs in its place, some before this is imported."""
    return function if type(function) is FunctionType and function.__globals__ is vars(utils) else None


_djangos_execute = if_djangos(CursorWrapper.execute)
_fetch_one, _fetch_all = methodcaller("fetchone"), methodcaller("fetchall")


class Promoted(Exception):
    """The server behind a replica's alias takes writes, and the checker does not know it yet. Never leaves this package."""


class RoutedCursor(CarryingCursor):
    """A cursor on an alias of a cluster.

    `requested` is the connection that it was asked of, `db` the one that it is on. On a replica it opens nothing until a statement is
    known, so that a statement which belongs elsewhere never touches that host.
    """

    # There is a cursor for each query of the ORM: what it begins with is not set anew each time.
    _kind = Kind.READ
    _is_bound = False
    _failed_at = inf
    _decision = Decision("", Reason.EXPLICIT)
    _judged: Any = None
    _statement: tuple[Any, Any] | None = None
    _has_run = False
    _may_have_run = True
    _was_late = False
    _left_to_primary: tuple[str, str] | None = None
    _rows_delivered = False
    _is_open = False
    """Whether there is a raw cursor yet."""
    pglb_is_closed = False
    _settings: Mapping[str, Any] = MappingProxyType({})
    """What the caller has set on what stands in for the raw cursor."""

    def __init__(self, cursor: Any, db: Any, primary: str | None = None, name: str | None = None) -> None:
        super().__init__(cursor, db)
        if cursor is None or isinstance(cursor, RoutedCursor | RawCursor):
            del self.cursor  # see __getattr__, from where one of ours may have come
        else:
            self._is_open = True
        self.requested = db
        self._primary = primary or runtime.primary_of(db.alias) or db.alias
        self._name = name
        if primary is None:
            # Made as Django makes its own: by the debug toolbar, which looks at the connection before a statement is known.
            self._place(Kind.READ)

    def __getattr__(self, attr: str) -> Any:
        if attr == "cursor" and self.requested.alias != self._primary:
            # Somebody means psycopg's own, before it is known where the statement belongs.
            return RawCursor(self)
        if not self._is_open:
            self._open_before_statement()
        return self.cursor if attr == "cursor" else super().__getattr__(attr)

    def close(self) -> None:
        self.pglb_is_closed = True
        if self._is_open:
            self.cursor.close()

    # --- Statements ---

    def execute(self, sql: Any, params: Any = None) -> Any:
        lease = self._place_by_lease(sql)
        if lease is None:
            self._judge(sql, params)
        elif self._has_nothing_to_add(lease):
            return self._execute_at_once(lease, sql, params)
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
            with self._noting_outcome(), self._changing_session(f"SELECT {procname}()"):
                return super().callproc(procname, params, kparams)
        finally:
            self._count()

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Do what psycopg's `Cursor.copy()` does, on the host where this statement belongs. Raises psycopg's own errors."""
        # In this order: what was copied in is committed when psycopg's context ends.
        with self._noting_outcome(), self._seeing_at_end(), ExitStack() as stack:
            stack.callback(lambda: self.db.pglb_note_end_of_rows())
            yield self._begin(statement, params, lambda: stack.enter_context(self.cursor.copy(statement, params, **kwargs)))

    def stream(self, query: Any, params: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Do what psycopg's `Cursor.stream()` does, on the host where this statement belongs. Raises psycopg's own errors."""

        def begin() -> tuple[Any, list[Any]]:
            rows = self.cursor.stream(query, params, **kwargs)
            return rows, list(islice(rows, 1))

        with self._noting_outcome(), self._seeing_at_end(), ExitStack() as stack:
            stack.callback(lambda: self.db.pglb_note_end_of_rows())
            rest, first = self._begin(query, params, begin)
            stack.callback(rest.close)
            yield from first
            yield from rest

    def pglb_run(self, statement: Any, params: Any, run: Callable[[Any], Any]) -> None:
        """Do what `run` does with the raw cursor, on the host where this statement belongs. Raises psycopg's own errors."""
        with self._noting_outcome():
            self._begin(statement, params, lambda: run(self.cursor))
            self._see_apart()

    def pglb_set(self, name: str, value: Any) -> None:
        """Set an attribute of the raw cursor, on whichever host that will be."""
        self._settings = {**self._settings, name: value}
        if self._is_open:
            setattr(self.cursor, name, value)

    @property
    def _wrapper(self) -> type[CursorWrapper]:
        return CursorDebugWrapper if self.db.queries_logged else CursorWrapper

    # --- Where ---

    def _place_by_lease(self, sql: Any) -> Lease | None:
        """Open a raw cursor on the replica that was asked for, if the rules have answered already that this unit of work reads there."""
        requested = self.requested
        lease = placement.held_lease(self._primary)
        if lease is None or lease.decision.alias != requested.alias or classify(sql) is not Kind.READ:
            return None
        if requested.connection is not None and not requested.autocommit:
            return None  # there is a transaction on it
        self._judged, self._kind, self._failed_at = sql, Kind.READ, inf
        self._open_placed(lease.decision)
        return lease

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
            self._open_placed(placement.place_on_primary(self._primary, kind))
        elif self._is_in_own_transaction():
            if kind is Kind.WRITE and is_local_setting(self._judged):
                self._kind = Kind.READ
            self._open_placed(placement.place_in_own_transaction(self.requested.alias, self._kind, is_bound=self._is_bound))
        else:
            self._open_placed(placement.place_on_replica(self.requested.alias, kind, is_bound=self._is_bound))

    def _is_in_own_transaction(self) -> bool:
        """Say whether the caller has a transaction of the replica's own, as only `use_replicas()` lets one be opened.

        Outside it a mirror may have the one of a test case that has no primary.
        """
        requested = self.requested
        return requested.pglb_has_own_transaction and (requested.pglb_mirror_of is None or placement.is_stale_allowed())

    def _begin(self, statement: Any, params: Any, begin: Callable[[], T]) -> T:
        """Return what `begin` returns on the host where `statement` belongs, which cannot share a message with its proof.

        Raises psycopg's errors for what `begin` does, as Django leaves it to psycopg.
        """
        self._judge(statement, params)

        def run() -> T:
            with self.db.pglb_in_time():
                self._prove_apart()
                with self._changing_session(statement) if self._kind is Kind.WRITE else nullcontext(), self.db.wrap_database_errors:
                    begun = begin()
            if self._on_replica:
                self._refuse_promoted()
            return begun

        try:
            with self.debug_sql(statement) if self.db.queries_logged else nullcontext(), self._protecting():
                return self._with_failover(run)
        except DatabaseError as error:
            raise error.__cause__ or error from None
        finally:
            self._count()

    def _count(self) -> None:
        """Count the statement where it was answered in the end."""
        placement.count(self._primary, self._decision, self.requested.alias, self._kind)

    def _open_placed(self, decision: Decision) -> None:
        """Open a raw cursor where `decision` says, or on the next host if that one cannot be reached."""
        requested = self.requested
        self._may_have_run = False
        while True:
            self._decision = decision
            try:
                self._open(requested if decision.alias == requested.alias else connection_to(decision.alias))
            except DatabaseError as error:
                if decision.alias == self._primary:
                    decision = self._without_primary(error)
                else:
                    decision = self._after_failure(decision.alias, error, Phase.CONNECT)
            except AssertionError:
                # So does a test case forbid aliases in threads that it did not start; a mirror is the primary anyway.
                if connection_to(decision.alias).pglb_mirror_of is None:
                    raise
                decision = self._exclude(decision.alias, Reason.FAILOVER)
            else:
                self._may_have_run = True
                if self._kind is Kind.WRITE:
                    # Not earlier: what cannot be sent writes nothing.
                    pointers.note_write(self._primary)
                return

    def _open(self, db: Any) -> None:
        if self.pglb_is_closed:
            raise InterfaceError("the cursor is closed")
        if self._is_open and self.db is db:
            if get_config().prepares:
                db.pglb_prepare()
            if self._name is None and self.cursor.connection is db.connection:
                return
            self._discard()
        # A cursor on another host is kept until there is a new one: Django's query log looks at it when this fails.
        cursor = db.pglb_open_cursor(self._name)
        if self._settings:
            for name, value in self._settings.items():
                setattr(cursor, name, value)
        if self._is_open:
            self._discard()
            self._has_run = self._rows_delivered = False
        self.cursor, self.db, self._is_open = cursor, db, True

    def _open_before_statement(self) -> None:
        """Open a raw cursor for somebody who looks at it: on a replica's alias where a read would go now, since that host may be gone."""
        if self.pglb_is_closed or self.requested.alias == self._primary:
            self._open(self.requested)
        else:
            self._place(Kind.READ)

    def _discard(self) -> None:
        try:
            self.cursor.close()
        except psycopg.Error:
            # The connection is broken, which whoever discards this cursor knows already.
            return

    def _protecting(self) -> AbstractContextManager[None]:
        return placement.protecting(self._primary, self._decision, self._kind)

    # --- Running ---

    def _has_nothing_to_add(self, lease: Lease) -> bool:
        """Say whether the statement can be handed to psycopg as it is: nobody watches it, and its connection has proved what it must."""
        db = self.db
        is_proved = lease.is_unbound or db.pglb_serial in lease.settled
        is_plain = apps.ready and CursorWrapper.execute is _djangos_execute and not (self._name or db.execute_wrappers or db.queries_logged)
        return is_proved and is_plain and db is self.requested

    def _execute_at_once(self, lease: Lease, sql: Any, params: Any) -> Any:
        """Do what `execute` does on a replica, with nothing around it."""
        db, raw, flying = self.db, self.cursor, lease.in_flight
        flying.append(None)
        try:
            try:
                if db.pglb_read_timeout is None:
                    result = raw.execute(sql) if params is None else raw.execute(sql, params)
                else:
                    with db.pglb_in_time():
                        result = raw.execute(sql, params)
            except psycopg.Error:
                with db.wrap_database_errors:
                    raise
            if db.connection.pgconn.parameter_status(IN_HOT_STANDBY) == b"off":
                self._refuse_promoted()
        except (DatabaseError, Promoted) as error:
            failure = error
        else:
            placement.count_in(lease.cluster, lease.decision)
            return result
        finally:
            flying.pop()
        try:
            return self._with_failover(lambda: self._execute_here(sql, params), failure)
        finally:
            self._count()

    def _execute(self, sql: Any, params: Any, *ignored_wrapper_args: Any) -> Any:
        if sql is not self._judged:
            # One of Django's `execute_wrapper`s has put another statement in its place.
            self._judge_text(sql, params)
        self._statement = (sql, params)
        if not self._on_replica:
            return self._execute_here(sql, params)
        return self._with_failover(lambda: self._execute_here(sql, params))

    def _executemany(self, sql: Any, param_list: Any, *ignored_wrapper_args: Any) -> Any:
        if sql is not self._judged:
            self._judge_text(sql, param_list)
        if not self._on_replica:
            return self._executemany_here(sql, param_list)
        every = list(param_list)
        return self._with_failover(lambda: self._executemany_here(sql, every))

    def _execute_on_primary(self, sql: Any, params: Any) -> Any:
        # What a transaction of the caller's own, also one that Django knows nothing of, has done before would be lost.
        connection = self.db.connection
        was_idle = connection is not None and self.db.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE
        with self._around_on_primary():
            try:
                return self._execute_carrying(sql, params)
            except DatabaseError as error:
                return self._run_again_on_primary(lambda: self._execute_carrying(sql, params), error, was_idle=was_idle)

    def _engine_at_work(self) -> AbstractContextManager[None]:
        # Another engine's cursor may remember on its connection what it has told the session.
        return cast("AbstractContextManager[None]", self.db.pglb_engine_at_work()) if self.db.pglb_layers else nullcontext()

    def _around_on_primary(self) -> AbstractContextManager[None]:
        """Return what a write's outcome must be noted by, or what a read's place must be held by."""
        return self._protecting() if self._kind is Kind.READ else self._noting_outcome()

    @contextmanager
    def _noting_outcome(self) -> Iterator[None]:
        """Note that a write in here has returned, or that its answer never came. Neither if it has certainly not run."""
        try:
            yield
        except (DatabaseError, psycopg.Error) as error:
            self._may_have_run = self._may_have_run and not self.db.pglb_was_refused(error)
            # In a transaction nothing can have been committed by this statement.
            if self._may_have_run and self._kind is Kind.WRITE and not self.db.in_atomic_block and self.db.pglb_is_lost:
                self.db.pglb_note_unknown_outcome()
            raise
        finally:
            if self._may_have_run and self._kind is Kind.WRITE:
                pointers.note_end_of_write(self._primary)

    def _execute_here(self, sql: Any, params: Any) -> Any:
        self._has_run = True
        if not self._on_replica:
            if not self.db.pglb_layers:
                return self._execute_on_primary(sql, params)
            with self._engine_at_work():
                return self._execute_on_primary(sql, params)
        lease = placement.held_lease(self._primary)
        flying = runtime.get_runtime().in_flight[self.db.alias]
        flying.append(None)
        try:
            if self.db.pglb_read_timeout is None:
                result = self._execute_carrying(sql, params)
            else:
                with self.db.pglb_in_time():
                    result = self._execute_carrying(sql, params)
        finally:
            flying.pop()
        self._refuse_promoted()
        # What was placed elsewhere, or for another reason, may have had nothing to prove.
        if lease is not None and lease.decision == self._decision and self._carries_no_more():
            lease.settled.add(self.db.pglb_serial)
        return result

    def _refuse_promoted(self) -> None:
        """Raise `Promoted` if the server has just said that it is one, and the checker does not know."""
        if self.db.pglb_takes_writes and not placement.is_known_promoted(self.db.alias):
            raise Promoted

    def _executemany_here(self, sql: Any, param_list: Any) -> Any:
        if not self._on_replica:
            changing = self._changing_session(sql, is_repeated=True) if self._kind is Kind.WRITE else nullcontext()
            with self._noting_outcome(), self._engine_at_work(), changing:
                result = Plain._executemany(self, sql, param_list)
        else:
            with self.db.pglb_in_time():
                self._prove_apart()
                result = Plain._executemany(self, sql, param_list)
            self._refuse_promoted()
        self._note_seen_something()
        return result

    # --- Failing on the primary ---

    def _run_again_on_primary(self, run: Callable[[], T], error: DatabaseError, *, was_idle: bool) -> T:
        """Return what `run` returns on a new connection to the primary; raise `error` if the statement may have run, or may not leave."""
        for pause in self.db.pglb_pauses():
            if not self._may_run_again(error, was_idle=was_idle):
                raise error
            self._may_have_run = False
            pause()
            # The next connection may be one to another server: `HOST` may name several.
            self.db.close()
            self._open(self.db)
            self._may_have_run = True
            try:
                return run()
            except DatabaseError as another:
                error = another
        raise error

    def _may_run_again(self, error: DatabaseError, *, was_idle: bool) -> bool:
        """Say whether the statement that failed may be run on a new connection. Lets go of a server that is no primary any more."""
        db = self.db
        # A new connection has not been told what the old one was.
        is_bound_to_it = db.in_atomic_block or self._rows_delivered or db.pglb_carries_state
        sqlstate: str | None = getattr(error.__cause__, "sqlstate", None)
        verdict = judge_on_primary(sqlstate, connection_lost=db.pglb_is_lost)
        if verdict is OnPrimary.AGAIN_IF_DEMOTED:
            if not db.pglb_is_demoted():
                return False
            # Inside a transaction Django refuses everything from here on; after it, it connects anew.
            db.pglb_give_up_session()
            self._may_have_run = False
        return verdict is not OnPrimary.RAISE and was_idle and not is_bound_to_it

    # --- Failing over ---

    def _with_failover(self, run: Callable[[], T], failure: Exception | None = None) -> T:
        """Return what `run` returns on the first host that can answer: this one, the next replicas, the primary.

        `failure`: what this host has answered already.
        """
        while True:
            on_replica, fixed = self._on_replica, self.db.pglb_has_own_transaction or self._rows_delivered
            try:
                if failure is not None:
                    failed, failure = failure, None
                    raise failed
                result = run()
            except NotReached as behind:
                if fixed:
                    raise OperationalError(placement.CANNOT_LEAVE.format(self.db.alias)) from behind
                self._open_placed(self._after_short_proof())
            except Promoted as promoted:
                placement.report_failure(self.db.alias, "was promoted: it takes writes of its own")
                if fixed:
                    raise OperationalError(f"{self.db.alias} was promoted, and a transaction is open on it") from promoted
                self._exclude(self.db.alias, Reason.FAILOVER)
                self._open_placed(placement.place_again(self._primary, Reason.FAILOVER, is_bound=self._is_bound))
            except DatabaseError as error:
                if not on_replica:
                    raise
                self._open_placed(self._after_failure(self.db.alias, error, Phase.HELD if fixed else Phase.STATEMENT))
            else:
                if self._left_to_primary is not None and not self._on_replica:
                    runtime.get_runtime().note_left_to_primary(*self._left_to_primary)
                return result

    def _after_failure(self, alias: str, error: DatabaseError, phase: Phase) -> Decision:
        """Return who answers now that `alias` has failed with `error`. Raises `error` if it is the caller's own."""
        cause = error.__cause__
        sqlstate: str | None = getattr(cause, "sqlstate", None)
        if isinstance(cause, psycopg.Error) and is_cancelled_by_replay(cause):
            sqlstate = CANCELLED_BY_REPLAY
        is_late = isinstance(cause, ReadTimedOut)
        lost = is_late or connection_to(alias).pglb_is_lost
        verdict = judge(sqlstate, phase, connection_lost=lost)
        if is_late and self._was_late:
            # Two hosts at once, so it may be the statement that is slow: the primary may take its time, and no other host is suspected.
            verdict = Verdict.PRIMARY
        self._was_late = self._was_late or is_late
        if verdict is Verdict.RAISE:
            if lost and phase is not Phase.HELD:
                connection_to(alias).close()  # or the next statement would take the host for broken
            raise error
        if verdict is Verdict.PRIMARY and not is_late:
            self._left_to_primary = (alias, sqlstate or "")
        self._failed_at = min(self._failed_at, now())
        is_old = lost and not is_late and self._is_older_than_its_host(alias)
        if lost:
            connection_to(alias).close()
        if is_old:
            return self._decision
        if verdict is Verdict.HOST_OUT and not isinstance(cause, HostIsOut):
            why = "did not answer within READ_TIMEOUT" if is_late else f"failed a read ({sqlstate or type(cause or error).__name__})"
            placement.report_failure(alias, why)
        if verdict is Verdict.WAS_WRITE:
            self._kind = Kind.WRITE
            return placement.place_write(self._primary)
        cluster = self._cluster()
        if cluster is not None:
            cluster.exclude(alias, Reason.FAILOVER)
            if verdict is Verdict.PRIMARY:
                cluster.stay_on_primary(Reason.FAILOVER)
        return placement.place_again(self._primary, Reason.FAILOVER, is_bound=self._is_bound)

    def _without_primary(self, error: DatabaseError) -> Decision:
        """Return which replica answers now that the primary cannot be reached. Raises `error` if none may."""
        decision = None
        if self._kind is Kind.READ:
            decision = placement.place_without_primary(self._primary, self._decision, is_bound=self._is_bound)
        if decision is None:
            raise error
        return decision

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

    # --- Fetching ---
    # A client-side cursor holds its whole result by now; a named one meets the server again with every fetch.

    def fetchone(self) -> Any:
        return self._fetch(_fetch_one)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._fetch(methodcaller("fetchmany", *args, **kwargs))

    def fetchall(self) -> Any:
        return self._fetch(_fetch_all)

    def __iter__(self) -> Iterator[Any]:
        rows: Iterator[Any] = iter(())

        def first(cursor: Any) -> Any:
            nonlocal rows
            rows = iter(cursor)
            return next(rows, None)

        row = self._fetch(first)
        while row is not None:
            yield row
            with self.db.wrap_database_errors:
                row = next(rows, None)

    def _fetch(self, fetch: Callable[[Any], Any]) -> Any:
        if self._name is not None and self._is_open and not self.db.autocommit and get_config().prepares:
            # The server goes on with the statement, and another unit of work may have been here since.
            self.db.pglb_prepare()
        if self._name is None or self._rows_delivered or self._statement is None or not self._on_replica:
            if not self._is_open:
                self._open_before_statement()
            try:
                return fetch(self.cursor)
            except psycopg.Error:
                with self.db.wrap_database_errors:
                    raise
        rows = self._with_failover(lambda: self._first_fetch(fetch))
        self._rows_delivered = True
        return rows

    def _first_fetch(self, fetch: Callable[[Any], Any]) -> Any:
        """Fetch, after running the statement again if the host has changed under it."""
        if not self._has_run and self._statement is not None:
            self._execute_here(*self._statement)
        with self.db.pglb_in_time(), self.db.wrap_database_errors:
            return fetch(self.cursor)
