"""What to do when a statement fails, as one table.

1. SQLSTATE, phase, and whether the connection survived decide, never the class that Django raised: connect failures carry no SQLSTATE
   at all, and 25006 is an `InternalError`. https://www.postgresql.org/docs/current/errcodes-appendix.html
2. Once rows were delivered, or inside a transaction of the caller's, nobody else has the same snapshot: every failure is the caller's.
3. On a replica a read may always be run again elsewhere. On the primary only what it certainly has not run: a text that looks like a read
   may write all the same (a view, an operator, a cast), and a new connection has lost what the old one had been told (`SET ROLE`, locks).
4. Overload (too many connections, a pool that gives none) takes a host out as trouble does; the checker's pause before it looks again,
   which doubles while requests go on failing there, is what cools it down.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Verdict(Enum):
    """What to do with a read that failed on a replica before any row was delivered."""

    HOST_OUT = auto()  # the host is in trouble: another one answers, and it leaves the rotation
    HOST_STAYS = auto()  # another host answers, this one is all right
    PRIMARY = auto()  # only the primary can: the replica does not know this object yet, or no standby can do this
    WAS_WRITE = auto()  # not a read after all: the primary runs it, and it counts as a write
    RAISE = auto()  # the caller's own error


class OnPrimary(Enum):
    """What to do with a statement that failed on the primary."""

    RAISE = auto()
    AGAIN_IF_LOST = auto()  # whoever ended the connection with it has not run it: once more, on a new one
    AGAIN_IF_DEMOTED = auto()  # the same, if that server is a primary no more; else it is the caller's own error


class Phase(Enum):
    """How far a statement had come when it failed."""

    CONNECT = auto()  # no connection could be opened
    STATEMENT = auto()  # it was sent; nothing of its answer has been delivered
    HELD = auto()  # rows were delivered, or a transaction of the caller's is open


class Row(NamedTuple):
    """One row of the table: an error that a server tells in answer to a statement."""

    sqlstate: str
    exception: str  # psycopg's name for it
    on_replica: Verdict
    on_primary: OnPrimary = OnPrimary.RAISE


CANCELLED_BY_REPLAY = "40001"

TABLE = (
    # A recovery conflict cancelled the statement, or the connection while it was made, as serialization failure or as buffer deadlock:
    # the host is well. https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT
    Row(CANCELLED_BY_REPLAY, "SerializationFailure", Verdict.HOST_STAYS),
    Row("40P01", "DeadlockDetected", Verdict.HOST_STAYS),
    # What a pooler in front of a server says that is still starting; a direct connection is refused without an SQLSTATE.
    Row("57P03", "CannotConnectNow", Verdict.HOST_STAYS, OnPrimary.AGAIN_IF_LOST),
    # A limit on how long a connection may be idle has ended it, before this statement was read: nothing is wrong with the host.
    Row("57P05", "IdleSessionTimeout", Verdict.HOST_STAYS, OnPrimary.AGAIN_IF_LOST),
    Row("25P03", "IdleInTransactionSessionTimeout", Verdict.HOST_STAYS, OnPrimary.AGAIN_IF_LOST),
    # A limit that the user set, as the timeouts of statements and locks are, which end no connection and need no row.
    Row("25P04", "TransactionTimeout", Verdict.RAISE),
    Row("25006", "ReadOnlySqlTransaction", Verdict.WAS_WRITE, OnPrimary.AGAIN_IF_DEMOTED),
    # A migration that is not replayed yet: table, column, function or operator, type or collation, schema.
    Row("42P01", "UndefinedTable", Verdict.PRIMARY),
    Row("42703", "UndefinedColumn", Verdict.PRIMARY),
    Row("42883", "UndefinedFunction", Verdict.PRIMARY),
    Row("42704", "UndefinedObject", Verdict.PRIMARY),
    Row("3F000", "InvalidSchemaName", Verdict.PRIMARY),
    # The role that reads here has fewer rights than the primary's.
    Row("42501", "InsufficientPrivilege", Verdict.PRIMARY),
    # What no server in recovery can do: an unlogged table, positions that only a primary has.
    Row("0A000", "FeatureNotSupported", Verdict.PRIMARY),
    Row("55000", "ObjectNotInPrerequisiteState", Verdict.PRIMARY, OnPrimary.AGAIN_IF_DEMOTED),
    # Its memory or its disk does not suffice for this statement, which may be much for any host; others still run here.
    Row("53000", "InsufficientResources", Verdict.HOST_STAYS),
    Row("53100", "DiskFull", Verdict.HOST_STAYS),
    Row("53200", "OutOfMemory", Verdict.HOST_STAYS),
    # What a pooler says that finds its server full.
    Row("53300", "TooManyConnections", Verdict.HOST_OUT, OnPrimary.AGAIN_IF_LOST),
    Row("57P01", "AdminShutdown", Verdict.HOST_OUT),
    Row("57P02", "CrashShutdown", Verdict.HOST_OUT),
    Row("57P04", "DatabaseDropped", Verdict.HOST_OUT),
    # What PgBouncer says of every trouble with its server. Not all of class 08: with a living connection that is the query's own
    # (a foreign server that cannot be reached).
    Row("08P01", "ProtocolViolation", Verdict.HOST_OUT),
    # Its disk fails, or has failed.
    Row("58000", "SystemError", Verdict.HOST_OUT),
    Row("58030", "IoError", Verdict.HOST_OUT),
    Row("58P01", "UndefinedFile", Verdict.HOST_OUT),
    Row("58P02", "DuplicateFile", Verdict.HOST_OUT),
    Row("XX001", "DataCorrupted", Verdict.HOST_OUT),
    Row("XX002", "IndexCorrupted", Verdict.HOST_OUT),
)

BY_SQLSTATE = {row.sqlstate: row for row in TABLE}

# How a pooler says that it has no connection to its server, when it ends the client's with it. A server that lives on says the same of
# another server, which a foreign table or dblink names: that is the query's own. The rest of class 08 may come after the statement was
# run, and what is not named here of the classes 25, 53 and 57 is said by a server that goes on, or after all.
NOT_PASSED_ON = frozenset({"08001", "08004"})

# PgBouncer has one SQLSTATE for everything. These are its words, which it never translates, for statements that no server has seen.
WORDS_OF_PGBOUNCER = ("query_wait_timeout", "server login has been failing")


def judge(sqlstate: str | None, phase: Phase, *, connection_lost: bool) -> Verdict:
    """Return what to do with a read that failed on a replica. `connection_lost`: it could not be opened, or it broke."""
    if phase is Phase.HELD:
        return Verdict.RAISE
    row = BY_SQLSTATE.get(sqlstate or "")
    if row is not None:
        return row.on_replica
    return Verdict.HOST_OUT if connection_lost else Verdict.RAISE


def judge_on_primary(sqlstate: str | None, *, connection_lost: bool) -> OnPrimary:
    """Return what to do with a statement that failed on the primary. Whatever it says, only outside a transaction.

    That a connection is refused is not judged here: connecting is tried again by itself.
    """
    row = BY_SQLSTATE.get(sqlstate or "")
    verdict = OnPrimary.RAISE if row is None else row.on_primary
    if sqlstate in NOT_PASSED_ON:
        verdict = OnPrimary.AGAIN_IF_LOST
    return verdict if connection_lost or verdict is not OnPrimary.AGAIN_IF_LOST else OnPrimary.RAISE


def was_refused(sqlstate: str | None, text: str) -> bool:
    """Say whether what has ended a connection to the primary, and said `text`, has certainly not run the statement that it answers.

    Not all of this is worth trying again: PgBouncer may have let it wait for minutes.
    """
    said_by_pooler = sqlstate == "08P01" and any(words in text for words in WORDS_OF_PGBOUNCER)
    return said_by_pooler or judge_on_primary(sqlstate, connection_lost=True) is OnPrimary.AGAIN_IF_LOST
