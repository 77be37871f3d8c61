"""Where a server's WAL is, as pointers: after a commit on the primary, and after a read on any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from ..core.lsn import Pointer, normalise, parse_lsn, seen_lsn
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

ON_REPLICA: LiteralString = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()"


def pointer_on_primary(texts: Texts, written_at: float) -> Pointer:
    """Return what a primary's answer to `ON_PRIMARY` stands for."""
    position, walfile, block_bytes, segment_bytes = (text or "" for text in texts)
    lsn = normalise(parse_lsn(position), block_bytes=int(block_bytes), segment_bytes=int(segment_bytes))
    return Pointer(int(walfile[:8], 16), lsn, written_at)


def seen_on_primary(texts: Texts) -> Pointer:
    """Return the upper bound of what a read saw that was followed by `ON_PRIMARY` (the process's clock).

    A commit is in the WAL before anybody can see it.
    """
    return pointer_on_primary(texts, now())


def seen_on_replica(texts: Texts, alias: str, timeline: int | None) -> Pointer | None:
    """Return the upper bound of what a read on `alias` saw that was followed by `ON_REPLICA`; None if it cannot be told.

    The position of a promoted server is frozen, and says nothing of what it has written itself since.
    """
    in_recovery, replayed, received = texts
    if in_recovery != "t" or replayed is None or timeline is None:
        return None
    lsn = seen_lsn(alias, normalise(parse_lsn(replayed)), None if received is None else parse_lsn(received))
    return Pointer(timeline, lsn, now())


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
