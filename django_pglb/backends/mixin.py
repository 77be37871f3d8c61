"""What the engines add to Django's PostgreSQL backend: who served, what was written, and how far a replica is.

On an alias that belongs to no cluster, and with `PGLB_ENABLED = False` on a primary's, the engine is Django's own.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

import psycopg
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.utils.functional import cached_property
from psycopg.pq import TransactionStatus

from .. import placement, pointers, runtime
from ..conf import get_config
from ..core.lsn import Pointer
from ..core.retry import was_refused
from ..core.session_state import ALL_SETTINGS, CLEAN, ENDED, EVERYTHING, TRANSACTION
from ..engine import MIRROR_OF
from ..health.clock import now
from ..health.probe import NO_CONTROL_DATA
from .creation import MirrorAwareCreation
from .cursor import RoutedCursor
from .deadline import ask_by, connect_by
from .errors import HostIsOut
from .layers import EngineLayers
from .mirror import MirrorCursor
from .position import ON_PRIMARY, ON_PRIMARY_OF_SYSTEM, pointer_on_primary
from .preparing import PreparedSessions
from .proof import IN_HOT_STANDBY, shown_position
from .read_timeout import AnswerInTime
from .transactions import TransactionOfPrimary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from django.db.backends.utils import CursorWrapper

    from ..core.config import ClusterConfig, ReplicaConfig
    from ..core.routing_session import RoutingSession
    from ..core.session_state import SessionChange, SessionState
    from .position import Texts

# A host that accepts and never answers must not hold a request for the minutes that operating systems allow.
# Keepalives notice it while we wait for an answer, tcp_user_timeout while we send; psycopg raises connect_timeout to 2 s at least.
REPLICA_DEFAULTS = {
    "connect_timeout": 2,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}
READ_ONLY = "default_transaction_read_only"
OPENED_AT = "_pglb_opened_at"
CONVERSATION = "_pglb_conversation"
SESSION_STATE = "_pglb_session_state"
STATE_BEFORE = "_pglb_state_before"

_serials = itertools.count(1)
_cursor_numbers = itertools.count(1)


class LoadBalancedMixin(TransactionOfPrimary, EngineLayers, PreparedSessions):
    """Mix into a `DatabaseWrapper` of Django's PostgreSQL backend, before it."""

    pglb_capable = True
    """What the system checks look for on an engine."""
    pglb_serial = 0
    """The number of the connection that is open, unique in this process: proofs of a position hold for one connection."""
    pglb_writers: frozenset[RoutingSession] = frozenset()
    """The units of work that have written in the transaction that is open."""
    pglb_carries_state = False
    """Whether the session of the connection that is open was told something by its user that no other session knows."""
    _pglb_may_ask_system = True
    """Whether its role may see which system the primary is of, as far as is known."""
    pglb_shares_messages = True
    """Whether the proof and the read may travel in one message: not where the server's default isolation makes them share a snapshot."""

    pglb_read_timeout: float | None = None
    """How long a read may take on the connection that is open, which is a replica's then."""
    _pglb_deadline = inf
    """Until when a connection is waited for, where that must not take as long as it may."""

    creation_class = MirrorAwareCreation

    # --- What this alias is ---

    def pglb_cluster(self) -> ClusterConfig | None:
        """Return the cluster that this alias belongs to."""
        if self.alias == NO_DB_ALIAS:
            return None
        config = get_config()
        return config.clusters.get(config.primary_of.get(self.alias, ""))

    @property
    def pglb_is_primary(self) -> bool:
        """Whether this alias is the primary of a cluster."""
        cluster = self.pglb_cluster()
        return cluster is not None and cluster.primary == self.alias

    def pglb_replica(self) -> ReplicaConfig | None:
        """Return this alias' entry in `REPLICAS`."""
        return None if self.alias == NO_DB_ALIAS else get_config().replicas.get(self.alias)

    def _pglb_home(self) -> str | None:
        """Return the primary that answers for this alias, a replica's of a cluster that is switched off."""
        if self._pglb_means_itself or self.alias == NO_DB_ALIAS:
            return None
        home = get_config().home_of.get(self.alias)
        return None if home == self.alias else home

    @property
    def pglb_mirror_of(self) -> str | None:
        """The primary that a test runner has made this alias a mirror of."""
        mirror_of: str | None = self.settings_dict["TEST"].get(MIRROR_OF)
        return mirror_of

    @property
    def pglb_is_forbidden(self) -> bool:
        """Whether the running test case forbids this alias: Django then puts a failure that wraps `connect` in its place."""
        return hasattr(vars(self).get("connect"), "wrapped")

    @property
    def pglb_is_lost(self) -> bool:
        """Whether no connection is open: none was made, or it broke."""
        return self.connection is None or self.connection.closed

    @property
    def pglb_has_broken(self) -> bool:
        """Whether a connection that was open is not any more, and nobody has closed it here."""
        return self.connection is not None and bool(self.connection.closed)

    @property
    def pglb_opened_at(self) -> float:
        """When the connection that is open was made, by the checker's clock; a pool may have kept it for long."""
        opened_at: float = getattr(self.connection, OPENED_AT, inf)
        return opened_at

    # --- Connecting ---

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        replica = self.pglb_replica()
        if replica is None or self.pglb_mirror_of is not None:
            return params
        params = {**REPLICA_DEFAULTS, **params}
        if not replica.pooled:
            params["options"] = _with_read_only(params.get("options") or os.environ.get("PGOPTIONS", ""))
        return params

    @property
    def pool(self) -> Any:
        pool = super().pool
        if pool is None or self.pglb_replica() is None or self.pglb_mirror_of is not None:
            return pool
        from .replica_pool import ReplicaPool  # psycopg_pool need not be there

        options = self.settings_dict["OPTIONS"]
        # Who wants to be told when an attempt has failed for good wants the time that was set for it, too.
        may_forget = options["pool"] is True or "reconnect_failed" not in options["pool"]
        return ReplicaPool(pool, within=_connect_seconds(options), refuse_if_out=self._pglb_refuse_if_out, may_forget=may_forget)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = self._pglb_connect(conn_params)
        self.pglb_serial = next(_serials)
        self.pglb_read_timeout = self._pglb_find_read_timeout()
        self.pglb_shares_messages = self.isolation_level == psycopg.IsolationLevel.READ_COMMITTED
        return connection

    def _configure_connection(self, connection: Any) -> bool:
        # Called once for each connection of a pool, and whenever one without a pool is opened.
        if OPENED_AT not in vars(connection):
            setattr(connection, OPENED_AT, now())
            self._pglb_register(connection)
        must_commit: bool = super()._configure_connection(connection)
        return must_commit

    def _pglb_register(self, connection: psycopg.Connection[Any]) -> None:
        """Let the checker end this conversation if the replica falls silent: nothing else would, for as long as its kernel answers."""
        if self.pglb_replica() is None or self.pglb_mirror_of is not None:
            return
        try:
            setattr(connection, CONVERSATION, runtime.conversations.register(self.alias, connection.fileno(), owner=connection))
        except OSError as error:
            raise psycopg.OperationalError("no descriptor is left to watch over the connection with") from error

    def _pglb_connect(self, conn_params: dict[str, Any]) -> Any:
        if self.pglb_replica() is not None:
            self._pglb_refuse_if_out()
            return super().get_new_connection(conn_params)
        deadline = self._pglb_deadline
        if deadline == inf:
            return self._pglb_connect_persistently(conn_params)
        # So that the thread which is left alone with a server that does not answer ends as well. psycopg takes 2 s at least.
        seconds = min(int(conn_params.get("connect_timeout") or 2), 2)
        attempt = partial(self._pglb_connect_persistently, {**conn_params, "connect_timeout": seconds}, deadline)
        return connect_by(deadline, attempt, self._pglb_let_go)

    def _pglb_connect_persistently(self, conn_params: dict[str, Any], deadline: float = inf) -> Any:
        """Connect to the primary, again and again if need be."""
        for pause in self.pglb_pauses():
            try:
                return self._pglb_connect_to_primary(conn_params)
            except psycopg.OperationalError as error:
                # A pool that gives none has waited for as long as it was told to, and has tried to connect meanwhile.
                if now() > deadline or (self.pool and _is_refused_by_pool(error)):
                    raise
                pause()
        return self._pglb_connect_to_primary(conn_params)

    def _pglb_refuse_if_out(self) -> None:
        """Raise `HostIsOut` if the checker has found this replica offline: it would be waited for, perhaps in vain."""
        if self.pglb_mirror_of is None and runtime.get_runtime().is_out(self.alias):
            raise HostIsOut(f"the host of {self.alias!r} is out, and returns when the checker finds it well")

    def _pglb_let_go(self, connection: Any) -> None:
        """Close a connection that nobody waits for any more."""
        connection.close()
        if self.pool:
            self.pool.putconn(connection)

    def _pglb_connect_to_primary(self, conn_params: dict[str, Any]) -> Any:
        """Connect; refuse a server that was demoted, or is not promoted yet: what it says would pass for the newest there is."""
        connection = super().get_new_connection(conn_params)
        if self.pglb_cluster() is None or connection.pgconn.parameter_status(IN_HOT_STANDBY) != b"on" or not _is_standby(connection):
            return connection
        self._pglb_let_go(connection)
        raise psycopg.OperationalError(f"the server behind {self.alias!r} is a standby, not a primary")

    def pglb_pauses(self) -> Iterator[Callable[[], None]]:
        """Return what sleeps until the next attempt to reach the primary, for each attempt but the last."""
        cluster = self.pglb_cluster()
        if cluster is None:
            return
        for attempt in range(cluster.primary_attempts - 1):
            # Jitter: the workers of a site must not come back to a restarting primary all at once.
            yield partial(time.sleep, random.uniform(0.5, 1) * cluster.primary_backoff * 2**attempt)

    @contextmanager
    def temporary_connection(self) -> Iterator[CursorWrapper]:
        must_close = self.connection is None
        try:
            if self.pglb_replica() is None and self._pglb_home() is None:
                # Callers read attributes of the connection inside, so a lazy cursor must connect.
                self.ensure_connection()
            with self.cursor() as cursor:
                yield cursor
        finally:
            if must_close:
                self.close()

    @cached_property
    def pg_version(self) -> int:
        """The server's version. It may be asked for while a query is compiled, when no cursor could fail over yet."""
        cluster, home = self.pglb_cluster(), self._pglb_home()
        if cluster is None and home is not None:
            return cast("int", connections[home].pg_version)  # type: ignore[attr-defined]
        if cluster is None or cluster.primary == self.alias:
            version: int = super().pg_version
            return version
        try:
            self.ensure_connection()
        except DatabaseError as error:
            if not isinstance(error.__cause__, HostIsOut):
                placement.report_failure(self.alias, f"could not be connected to ({type(error.__cause__ or error).__name__})")
            # Physical replication needs the same major version on both.
            return cast("int", connections[cluster.primary].pg_version)  # type: ignore[attr-defined]
        return int(self.connection.info.server_version)

    # --- Cursors ---

    def connect(self) -> None:
        self.pglb_writers = frozenset()
        # What sets the connection up, Django itself or a handler of `connection_created`, means this very connection.
        try:
            with self.pglb_as_djangos():
                super().connect()
        except Exception:
            if self._pglb_deadline == inf and self.pglb_is_primary:
                pointers.note_refused(self.alias)
            raise
        # A pool may have had it before, and has rolled back what was open.
        self._pglb_note_rollback(is_whole=True)
        self.pglb_carries_state = not self._pglb_session_state.is_clean

    def close(self) -> None:
        super().close()
        if self.connection is None:
            self.pglb_carries_state = False

    def _cursor(self, name: str | None = None) -> Any:
        primary = None if self._pglb_means_itself or self.alias == NO_DB_ALIAS else get_config().primary_of.get(self.alias)
        if primary is None:
            home = self._pglb_home()
            if home is None and not self._pglb_means_itself and self.alias in get_config().prepares:
                # Switched off, or not: policies ask for it.
                self.ensure_connection()
                self.pglb_prepare()
            return super()._cursor(name) if home is None else cast("Any", connections[home])._cursor(name)
        if primary == self.alias and not placement.is_for_want_of_replica(primary):
            if name is None:
                return RoutedCursor(self.pglb_open_cursor(), self, primary)
            # Callers may rely on it, as they may with Django's.
            self.ensure_connection()
        # Where a statement of a replica runs is decided when it is known; until then nothing is opened. Nor is one for which the primary
        # stands in, as a replica may have to take over. Nor a named cursor, on any alias: psycopg would have to ask the server whether it
        # exists in order to close one that has not run.
        self._pglb_validate_thread()
        # Django numbers the names of each alias, and statements of several may meet on one connection.
        return self.pglb_cursor_class(None, self, primary, None if name is None else f"{name}_{next(_cursor_numbers)}")

    pglb_routed_cursor = _cursor

    @cached_property
    def pglb_cursor_class(self) -> type[RoutedCursor]:
        return RoutedCursor if self.pglb_mirror_of is None else MirrorCursor

    def check_constraints(self, table_names: Any = None) -> None:
        # What was written by a mirror's name is the primary's to check. Django asks every connection of a test case when a test is over,
        # and leaves out those whose transaction is broken: here it would be the primary's that the question arrives at.
        if self.pglb_mirror_of is None:
            super().check_constraints(table_names)

    def pglb_open_cursor(self, name: str | None = None, *, for_us: bool = False) -> Any:
        """Return a raw cursor on this alias' connection, connecting if need be: what Django's `_cursor()` wraps.

        `for_us`: no statement of the user's will run on it.
        """
        if self._pglb_opens_by_engine and not for_us:
            return self._pglb_open_by_engine(name)
        if self.health_check_enabled and not self.health_check_done:
            with self.pglb_in_time():
                self.close_if_health_check_failed()
        if self.connection is None or self._pglb_owes_begin:
            self.ensure_connection()
        if not for_us and get_config().prepares:
            self.pglb_prepare()
        # Where every statement passes, Django's wrapper is entered for an error only: entering and leaving it costs more than the rest.
        try:
            cursor = self.create_cursor(name)
        except psycopg.Error:
            with self.wrap_database_errors:
                raise
        self._pglb_validate_thread()
        return cursor

    def _pglb_validate_thread(self) -> None:
        # Django's check takes a lock first.
        if self._thread_ident != get_ident():
            self.validate_thread_sharing()

    # --- What the session carries ---

    @property
    def _pglb_session_state(self) -> SessionState:
        """What was left behind in the session. The raw connection keeps it, for whoever gets that next from a pool."""
        state: SessionState = getattr(self.connection, SESSION_STATE, CLEAN)
        return state

    @property
    def _pglb_state_before(self) -> SessionState | None:
        """What was left behind before the transaction that is open; None if that has changed nothing."""
        state: SessionState | None = getattr(self.connection, STATE_BEFORE, None)
        return state

    def _pglb_keep_state(self, state: SessionState, *, before: SessionState | None) -> None:
        setattr(self.connection, SESSION_STATE, state)
        setattr(self.connection, STATE_BEFORE, before)
        self.pglb_carries_state = not state.is_clean

    @contextmanager
    def pglb_changing_session(self, change: SessionChange) -> Iterator[None]:
        """Note that a statement in here changes the session: until that ends, no replica can stand in for it.

        What it takes away is gone when it has come to its end, and until then, or if it fails, it may be there.
        """
        state, before = self._pglb_session_state, self._pglb_state_before
        is_idle = self.connection.autocommit and self.connection.info.transaction_status == TransactionStatus.IDLE
        if before is None and (TRANSACTION in change.sets or not is_idle):
            before = state
        after = state.after(change)
        self._pglb_keep_state(state.joined(after), before=before)
        if not change.ends.isdisjoint((TRANSACTION, ALL_SETTINGS, EVERYTHING)):
            # A reset may have taken away what the session was prepared with, as a rollback does.
            self.pglb_void_prepared(also_outside=True)
        cluster = self.pglb_cluster()
        if change.matters and cluster is not None:
            placement.note_session_change(cluster.primary)
        yield
        if TRANSACTION in change.ends:
            # Nobody knows whether it was committed: so is one that has failed, and nothing of it is.
            after, before = after.joined((before or state).after(ENDED)), None
        self._pglb_keep_state(after, before=before)

    def _pglb_note_committed(self) -> None:
        if self._pglb_state_before is not None:
            self._pglb_keep_state(self._pglb_session_state, before=None)

    def _pglb_note_rollback(self, *, is_whole: bool) -> None:
        """Note that a transaction was rolled back, or a part of it: what was told in it is gone, and what was reset in it is back."""
        self.pglb_void_prepared()
        state, before = self._pglb_session_state, self._pglb_state_before
        if before is not None and is_whole:
            self._pglb_keep_state(state.rolled_back(before), before=None)
        elif before is not None:
            self._pglb_keep_state(state.joined(before), before=before)

    # --- Reading in time ---

    def _pglb_find_read_timeout(self) -> float | None:
        cluster = self.pglb_cluster()
        return None if cluster is None or cluster.primary == self.alias or self.pglb_mirror_of is not None else cluster.read_timeout

    def pglb_in_time(self) -> AbstractContextManager[None]:
        """Give up what this replica is asked in here when `READ_TIMEOUT` has passed, if that is set.

        Not in a transaction, with which nobody else can go on.
        """
        limit = None if self.pglb_read_timeout is None or self.pglb_has_own_transaction else self.pglb_time_limit()
        return limit or nullcontext()

    def pglb_time_limit(self) -> AnswerInTime | None:
        """Return what a read on the connection that is open is timed by; None: by nothing."""
        seconds, conversation = self.pglb_read_timeout, getattr(self.connection, CONVERSATION, None)
        return None if seconds is None or conversation is None else AnswerInTime(self.alias, conversation, seconds)

    # --- What the server is now ---

    @property
    def pglb_takes_writes(self) -> bool:
        """Whether this replica has said, on a connection of its own, that it was promoted. Costs no round trip."""
        if self.connection is None or self.connection.pgconn.parameter_status(IN_HOT_STANDBY) != b"off" or self.pglb_mirror_of is not None:
            return False
        replica = self.pglb_replica()
        return replica is not None and not replica.pooled

    def pglb_is_demoted(self) -> bool:
        """Ask whether the server that the primary's alias is connected to is a standby now. False if it does not answer."""
        return not self.pglb_is_lost and _is_standby(self.connection)

    # --- Transactions ---

    @property
    def pglb_transaction_is_open(self) -> bool:
        """Whether a transaction is open on this connection as far as Django knows. Never connects."""
        return self.__dict__["in_atomic_block"] or (self.connection is not None and not self.autocommit)

    @property
    def pglb_transaction_has_failed(self) -> bool:
        """Whether the transaction that is open can only be rolled back."""
        return self.connection is not None and self.connection.pgconn.transaction_status == TransactionStatus.INERROR

    @property
    def pglb_is_busy(self) -> bool:
        """Whether rows are being streamed or copied, so that psycopg would let another statement wait for their end, here for ever."""
        return self.connection is not None and bool(self.connection.lock.locked())

    def pglb_in_transaction(self) -> bool:
        """Say whether a read must see what a transaction on this connection has done. Never connects.

        The block that `ATOMIC_REQUESTS` puts around a view does not count until a statement has run in it.
        """
        return self.pglb_transaction_is_open and not self.pglb_is_views_block_unused()

    def _commit(self) -> None:
        # Then nothing is sent, and the server has forgotten the transaction.
        was_lost, has_failed = self.pglb_is_lost, self.pglb_transaction_has_failed
        for routing in () if was_lost else self.pglb_writers:
            routing.note_may_be_committed(self.alias)
        try:
            super()._commit()
        except Exception as error:
            if self.pglb_is_lost and not (was_lost or self.pglb_was_refused(error)):
                self.pglb_note_unknown_outcome()
                self._pglb_tell_writers()
            raise
        self.pglb_note_use()
        if has_failed:
            # The server has rolled it back, and says that all is well.
            self._pglb_note_rollback(is_whole=True)
        else:
            self._pglb_note_committed()

    def _rollback(self) -> None:
        self.pglb_writers = frozenset()
        super()._rollback()
        self._pglb_note_rollback(is_whole=True)

    def run_and_clear_commit_hooks(self) -> None:
        # Ours first: the others may tell somebody of what was committed.
        self._pglb_tell_writers()
        super().run_and_clear_commit_hooks()

    def _pglb_tell_writers(self) -> None:
        writers, self.pglb_writers = self.pglb_writers, frozenset()
        for routing in writers:
            pointers.note_commit(routing, self.alias)

    def _savepoint(self, sid: str) -> None:
        self._pglb_control(self.ops.savepoint_create_sql(sid))

    def _savepoint_rollback(self, sid: str) -> None:
        self._pglb_control(self.ops.savepoint_rollback_sql(sid))
        self._pglb_note_rollback(is_whole=False)

    def _savepoint_commit(self, sid: str) -> None:
        self._pglb_control(self.ops.savepoint_commit_sql(sid))

    def _pglb_control(self, sql: str) -> None:
        """Run a statement that steers a transaction and writes nothing."""
        if self.pglb_cluster() is None:
            with self.cursor() as cursor:
                cursor.execute(sql)
            return
        with self.pglb_as_djangos(), super()._cursor() as cursor:
            cursor.execute(sql)

    def pglb_was_refused(self, error: Exception) -> bool:
        """Say whether `error` ended this connection before the statement that it answers was run."""
        cause = error if isinstance(error, psycopg.Error) else error.__cause__
        sqlstate: str | None = getattr(cause, "sqlstate", None)
        return self.pglb_is_lost and was_refused(sqlstate, str(error))

    def pglb_note_unknown_outcome(self) -> None:
        """Note that a write was sent to this primary and its answer never came."""
        if self.pglb_is_primary:
            pointers.note_write(self.alias, outcome_unknown=True)

    def pglb_note_use(self) -> None:
        """Note that a transaction has ended on this primary, or rows have been copied there: an earlier position does not cover them."""
        if self.pglb_is_primary:
            runtime.get_runtime().note_use(self.alias)

    def pglb_note_end_of_rows(self) -> None:
        """Note that the connection is free again: whoever wrote, and was saved among the rows, can have a position now."""
        self.pglb_note_use()
        if not self.pglb_transaction_is_open:
            self._pglb_tell_writers()

    # --- Positions ---

    def pglb_replayed_lsn(self) -> int:
        """Return the position that this replica has replayed, as a proof for this connection; -1 if it shows none.

        One round trip; connects if need be. Raises Django's database errors.
        """
        self.ensure_connection()
        with self.pglb_in_time(), self.wrap_database_errors:
            return shown_position(self.connection)

    def pglb_capture_pointer(self, within_seconds: float) -> Pointer | None:
        """Return where the primary's WAL ends now, normalised; None inside a transaction, where that proves nothing, and among rows.

        Call it after a commit has returned. One round trip; connects if need be. Takes no longer than `within_seconds`, and costs the
        connection if that is too short. Raises Django's database errors, and `SynchronousOnlyOperation` in an event loop.
        """
        if self.pglb_transaction_is_open or self.pglb_is_busy:
            return None
        deadline, was_open = now() + within_seconds, self.connection is not None
        try:
            texts = self._pglb_ask_position(deadline)
        except DatabaseError:
            # Who has changed the session must not go on in another one unawares. The next statement says that it is gone.
            if not (was_open and self.pglb_is_lost) or self.pglb_carries_state:
                raise
            self.close()
            if now() >= deadline:
                raise
            # The connection has died since the commit. Asking once more, on a new one, is harmless.
            texts = self._pglb_ask_position(deadline)
        except SynchronousOnlyOperation:
            raise  # before anything was asked
        except BaseException:
            # Interrupted among answers that are still on their way.
            self.pglb_give_up_session()
            raise
        return pointer_on_primary(texts, time.time())

    def pglb_give_up_session(self) -> None:
        """Part with a connection that is of no more use: as if it had broken, where somebody has changed its session."""
        if self.pglb_carries_state:
            self.connection.close()
            self.errors_occurred = True  # so Django lets go of it at the end of the request
        else:
            self.close()

    def _pglb_ask_position(self, deadline: float) -> Texts:
        self._pglb_validate_thread()
        self._pglb_deadline = deadline
        try:
            self.ensure_connection()
            with self.wrap_database_errors:
                if self._pglb_may_ask_system:
                    with suppress(*NO_CONTROL_DATA):
                        return ask_by(deadline, self.connection, ON_PRIMARY_OF_SYSTEM.encode())
                    self._pglb_may_ask_system = False
                return ask_by(deadline, self.connection, ON_PRIMARY.encode())
        finally:
            self._pglb_deadline = inf


def _is_standby(connection: psycopg.Connection[Any]) -> bool:
    if connection.info.transaction_status == TransactionStatus.INERROR:
        # It answers nothing until somebody rolls back.
        return connection.pgconn.parameter_status(IN_HOT_STANDBY) == b"on"
    # Below psycopg, which would begin a transaction for it.
    try:
        result = connection.pgconn.exec_(b"SELECT pg_is_in_recovery()")
    except psycopg.Error:
        return False
    return result.ntuples == 1 and result.get_value(0, 0) == b"t"


def _is_refused_by_pool(error: psycopg.OperationalError) -> bool:
    from psycopg_pool import PoolTimeout, TooManyRequests  # it need not be there

    return isinstance(error, PoolTimeout | TooManyRequests)


def _connect_seconds(options: dict[str, Any]) -> float:
    """Return how long one connection may take to be made, as psycopg reads the option."""
    seconds = float(options.get("connect_timeout", REPLICA_DEFAULTS["connect_timeout"]) or 0)
    return max(seconds, 2) if seconds > 0 else inf


def _with_read_only(options: str) -> str:
    """Append the read-only default to startup options, unless the user has decided about it."""
    return options if READ_ONLY in options else f"{options} -c {READ_ONLY}=on".strip()
