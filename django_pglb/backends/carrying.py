"""What a read carries with it: before it the proof that a replica has reached the pointer, after it the position that bounds what it saw.

Both travel in the read's own message wherever they can.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from django.db import DatabaseError
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from psycopg.pq import TransactionStatus

from .. import placement
from ..context import current_scope
from ..core.decision import Reason
from ..core.retry import Phase, Verdict, judge
from ..core.statements import Kind
from ..glance import current_glance
from .position import ON_PRIMARY, ON_REPLICA, ask, replayed_position, seen_on_primary, seen_on_replica, take_last
from .proof import PROOF, NotReached, position_of, shown_position
from .sql import change_of, enclosed, is_empty

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from ..core.decision import Decision
    from ..core.routing_session import ClusterSession
    from .position import Texts

# query_canceled and lock_not_available: limits that the user set, whatever the state of the data.
TIMEOUTS = frozenset({"57014", "55P03"})

# Django's own cursor. The type stubs leave out its private methods, which are what must run below `execute_wrapper`s.
Plain: Any = CursorWrapper

_NO_CHANGE = nullcontext()


class CarryingCursor(CursorDebugWrapper):
    """Runs one statement on the connection that it is on, `db`, with what it must carry."""

    cursor: Any
    db: Any
    _primary: str
    _name: str | None
    _kind: Kind
    _decision: Decision
    _settings: Mapping[str, Any]

    @property
    def _on_replica(self) -> bool:
        return bool(self.db.alias != self._primary)

    def _cluster(self) -> ClusterSession | None:
        routing = current_scope().routing
        return None if routing is None else routing.cluster(self._primary)

    def _execute_carrying(self, sql: Any, params: Any) -> Any:
        """Run the statement. Raises `NotReached` if this host is short of the pointer."""
        if self._kind is Kind.WRITE:
            with self._changing_session(sql):
                result = Plain._execute(self, sql, params)
            self._note_seen_something()
            return result
        must_prove, must_see = self._unproved_lsn() is not None, self._must_see()
        if not (must_prove or must_see) or is_empty(sql, self.db):
            return Plain._execute(self, sql, params)
        if not self._can_share_message():
            return self._execute_apart(sql, params)
        return self._execute_together(sql, params, must_prove=must_prove, must_see=must_see)

    def _carries_no_more(self) -> bool:
        """Say whether later reads on this connection need neither, as long as what binds the unit of work stays the same."""
        return not placement.is_monotonic(self._primary) and self._unproved_lsn() is None

    def _can_share_message(self) -> bool:
        # Who has set something on the raw cursor may have asked for other rows than tuples.
        is_plain = self._name is None and not self._settings
        return is_plain and isinstance(self.cursor, psycopg.ClientCursor) and self.db.pglb_shares_messages

    def _execute_apart(self, sql: Any, params: Any) -> Any:
        self._prove_apart()
        result = Plain._execute(self, sql, params)
        self._see_apart()
        return result

    def _execute_together(self, sql: Any, params: Any, *, must_prove: bool, must_see: bool) -> Any:
        before, after = PROOF if must_prove else "", self._question if must_see else ""
        try:
            Plain._execute(self, enclosed(before, sql, after), params)
        except DatabaseError as error:
            if not (must_prove and self._may_be_due_to_old_state(error)):
                raise
            return self._execute_apart(sql, params)
        with self.db.wrap_database_errors:
            seen = take_last(self.cursor) if must_see else None
            if must_prove and not self._is_proved():
                return self._execute_apart(sql, params)
        if seen is not None:
            self._note_seen(seen)
        return self.cursor

    def _changing_session(self, sql: Any, *, is_repeated: bool = False) -> AbstractContextManager[None]:
        """Note in here what a write leaves behind in its session, whether it comes back or not."""
        change = change_of(sql, self.db)
        if change is not None and is_repeated:
            change = change.repeated()
        return _NO_CHANGE if change is None else self.db.pglb_changing_session(change)

    # --- Proving ---

    def _unproved_lsn(self) -> int | None:
        """Return the position that this host must still prove before it may answer, if any."""
        if not self._on_replica or self._decision.reason is Reason.STALE_ALLOWED or self.db.pglb_mirror_of is not None:
            return None
        cluster = self._cluster()
        if cluster is None:
            return None
        replica = self.db.pglb_replica()
        serial = None if replica is None or replica.pooled else self.db.pglb_serial
        wanted = cluster.wanted_lsn(placement.mark_of(self.db.alias), serial)
        if wanted is None:
            return None
        proved = -1 if serial is None else cluster.proofs.get(serial, -1)
        return wanted if proved < wanted else None

    def _is_proved(self) -> bool:
        """Read the proof, and go on to the caller's own result. Says whether it proves anything; raises `NotReached` if it is short."""
        position, read_committed = self.cursor.fetchone()
        if not read_committed:
            self.db.pglb_shares_messages = False
            return False
        self._accept(position_of(position))
        self.cursor.nextset()
        return True

    def _may_be_due_to_old_state(self, error: DatabaseError) -> bool:
        """Say whether a statement that failed beside its proof must be proved and run once more, to tell whose failure it is."""
        sqlstate = getattr(error.__cause__, "sqlstate", None)
        return (
            not self.db.pglb_is_lost
            and not self.db.pglb_has_own_transaction
            and sqlstate not in TIMEOUTS
            and judge(sqlstate, Phase.STATEMENT, connection_lost=False) is Verdict.RAISE
        )

    def _prove_apart(self) -> None:
        """Check the position in a statement of its own, before the one that it is for. Raises `NotReached` if it is short."""
        if self._unproved_lsn() is None:
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

    # --- Seeing ---

    def _must_see(self) -> bool:
        """Say whether what this read sees must be remembered."""
        if self._kind is Kind.WRITE or not placement.is_monotonic(self._primary) or self.db.pglb_mirror_of is not None:
            return False
        if current_scope().routing is None:
            return False
        glance = current_glance()
        if glance is not None:
            glance.saw_something = True
        return glance is None

    @property
    def _question(self) -> LiteralString:
        return ON_REPLICA if self._on_replica else ON_PRIMARY

    def _see_apart(self) -> None:
        """Ask for the position in a statement of its own, after the one that it is about."""
        if not self._must_see():
            return
        with self.db.wrap_database_errors:
            texts = ask(self.db.connection, self._question)
        self._note_seen(texts)

    def _note_seen(self, texts: Texts) -> None:
        cluster = self._cluster()
        if cluster is None:
            return
        alias, system = self.db.alias, placement.system_of(self._primary)
        if self._on_replica:
            seen = seen_on_replica(texts, placement.mark_of(alias), placement.timeline_of(alias), system)
            shown = replayed_position(texts)
            # As good as a proof for what comes next on this connection, unless that goes by a snapshot which was taken before.
            if shown is not None and self.db.connection.info.transaction_status == TransactionStatus.IDLE:
                cluster.prove(alias, self.db.pglb_serial, shown)
        else:
            seen = seen_on_primary(texts, system)
        cluster.see(self.db.pglb_serial, seen)

    @contextmanager
    def _seeing_at_end(self) -> Iterator[None]:
        """Ask for the position when what is read in here has been read to its end."""
        try:
            yield
            self._see_apart()
        except BaseException:
            # Some of it may have been seen; the connection may be gone, or busy with the rest.
            self._note_seen_something()
            raise

    def _note_seen_something(self) -> None:
        """Note that something was seen whose position cannot be asked yet: also what a write returned that binds nobody."""
        cluster = self._cluster()
        if cluster is None or cluster.must_save or not placement.is_monotonic(self._primary) or self.db.pglb_mirror_of is not None:
            return
        cluster.see(self.db.pglb_serial, None)
