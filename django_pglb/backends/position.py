"""Where a server's WAL is, as pointers: after a commit on the primary, and after a read on any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from ..core.lsn import UNKNOWN_SYSTEM, Pointer, normalise, parse_lsn, seen_lsn
from ..health.clock import now

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    Texts = tuple[str | None, ...]

# The insert position, not the written or flushed one: those miss rows committed with synchronous_commit = off.
# https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP
ON_PRIMARY: LiteralString = (
    "SELECT pg_current_wal_insert_lsn(), pg_walfile_name(pg_current_wal_insert_lsn()),"
    " current_setting('wal_block_size'), pg_size_bytes(current_setting('wal_segment_size'))"
)

# Of which system it is a position. A role, or a managed service, may not let it be asked.
ON_PRIMARY_OF_SYSTEM: LiteralString = ON_PRIMARY + ", (SELECT system_identifier FROM pg_control_system())"  # noqa: S608 - constants

# The position of a promoted server is frozen, and says nothing of what it has written itself since.
ON_REPLICA: LiteralString = (
    "SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(),"
    " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END,"
    " CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END"
)


def pointer_on_primary(texts: Texts, written_at: float, *, system: int | None = None) -> Pointer:
    """Return what a primary's answer to `ON_PRIMARY` stands for. `system` is what is known of its system, if that was not asked."""
    position, walfile, block_bytes, segment_bytes, *answered = (text or "" for text in texts)
    lsn = normalise(parse_lsn(position), block_bytes=int(block_bytes), segment_bytes=int(segment_bytes))
    if answered:
        system = int(answered[0])
    return _pointer(int(walfile[:8], 16), lsn, written_at, system)


def seen_on_primary(texts: Texts, system: int | None) -> Pointer:
    """Return the upper bound of what a read saw that was followed by `ON_PRIMARY` (the process's clock).

    A commit is in the WAL before anybody can see it. `system` is what is known of the primary's.
    """
    return pointer_on_primary(texts, now(), system=system)


def seen_on_replica(texts: Texts, mark: int, timeline: int | None, system: int | None) -> Pointer | None:
    """Return the upper bound of what a read saw that was followed by `ON_REPLICA`; None if it cannot be told.

    `mark` is the replica's, `timeline` and `system` what is known of the primary's.
    """
    replayed, received, inserted, walfile = texts
    if inserted is not None and walfile is not None:
        return _pointer(int(walfile[:8], 16), normalise(parse_lsn(inserted)), now(), system)
    if replayed is None or timeline is None:
        return None
    lsn = seen_lsn(mark, normalise(parse_lsn(replayed)), None if received is None else normalise(parse_lsn(received)))
    return _pointer(timeline, lsn, now(), system)


def _pointer(timeline: int, lsn: int, written_at: float, system: int | None) -> Pointer:
    # PostgreSQL shows 64 bits without a sign as a number with one.
    return Pointer(timeline, lsn, written_at, UNKNOWN_SYSTEM if system is None else system % 2**64)


def replayed_position(texts: Texts) -> int | None:
    """Return the position that a standby's answer to `ON_REPLICA` shows; None if it shows none, as one that was promoted."""
    replayed, _, inserted, _ = texts
    return None if replayed is None or inserted is not None else parse_lsn(replayed)


def texts_of(result: PGresult) -> Texts:
    """Return the first row of `result` as PostgreSQL wrote it."""
    values = (result.get_value(0, column) for column in range(result.nfields))
    return tuple(None if value is None else value.decode() for value in values)


def take_last(cursor: Any) -> Texts:
    """Return the first row of the last result set of `cursor`, and take that set away: the caller's end before it.

    psycopg has no public way to do so without losing its place in the caller's.
    """
    return texts_of(cursor._results.pop())


def ask(connection: Any, statement: LiteralString) -> Texts:
    """Ask in a message of its own."""
    with connection.cursor() as cursor:
        return texts_of(cursor.execute(statement).pgresult)
