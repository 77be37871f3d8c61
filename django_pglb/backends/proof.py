"""How a replica proves, to the connection that asks, that it has replayed a position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

from ..core.lsn import parse_lsn

if TYPE_CHECKING:
    import psycopg

# Each statement of a message takes its own snapshot, so a position that was reached by the first is in what the second one sees.
# In REPEATABLE READ they would share one: the second column tells.
# CASE: on a promoted server the replayed position is frozen, and says nothing of what it has written itself since.
PROOF = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, current_setting('transaction_isolation') = 'read committed'"
)

# What a server of version 14 or later reports by itself whenever it changes. A pooler may pass on what it once heard.
# https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQPARAMETERSTATUS
IN_HOT_STANDBY = b"in_hot_standby"

NOWHERE = -1
"""The position of a server that can show none."""


class NotReached(Exception):
    """The replica has not replayed what this reader must see. Never leaves this package."""


def position_of(text: str | None) -> int:
    return NOWHERE if text is None else parse_lsn(text)


def shown_position(connection: psycopg.Connection[Any]) -> int:
    """Ask for the position in a message of its own. What is read on `connection` afterwards is no older than that."""
    with outside_transaction(connection) as is_outside, connection.cursor() as cursor:
        position, read_committed = cursor.execute(PROOF).fetchone() or (None, False)
    # A snapshot that was taken before says nothing about what the position is now.
    return position_of(position) if is_outside or read_committed else NOWHERE


@contextmanager
def outside_transaction(connection: psycopg.Connection[Any]) -> Iterator[bool]:
    """Let statements run outside the transaction that the next one would begin. Yields False if it has begun already."""
    if connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE:
        yield connection.autocommit
        return
    # psycopg sends BEGIN before the first statement only: https://www.psycopg.org/psycopg3/docs/basic/transactions.html
    connection.autocommit = True
    try:
        yield True
    finally:
        connection.autocommit = False
