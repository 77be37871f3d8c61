"""What to do when a statement on a replica fails, as one table.

SQLSTATE and whether the connection survived decide, never the class that Django raised: connect failures carry no SQLSTATE at all,
and 25006 is an `InternalError`. https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    """What to do with a read that failed on a replica before any row was delivered."""

    HOST_OUT = auto()  # the host is in trouble: another one answers, and it leaves the rotation
    HOST_STAYS = auto()  # another host answers, this one is all right
    PRIMARY = auto()  # only the primary can: the replica does not know this relation yet, or no standby can do this
    WAS_WRITE = auto()  # not a read after all: the primary runs it, and it counts as a write
    RAISE = auto()  # the caller's own error


BY_SQLSTATE = {
    "0A000": Verdict.PRIMARY,  # feature_not_supported: an unlogged table, whose rows no standby has
    "25006": Verdict.WAS_WRITE,  # read_only_sql_transaction
    "40001": Verdict.HOST_STAYS,  # serialization_failure: a recovery conflict cancelled the statement
    "40P01": Verdict.HOST_STAYS,  # deadlock_detected: the same, a buffer deadlock with recovery
    "42P01": Verdict.PRIMARY,  # undefined_table: a migration that is not replayed yet
    "42703": Verdict.PRIMARY,  # undefined_column: the same
    "53300": Verdict.HOST_OUT,  # too_many_connections
    "55000": Verdict.PRIMARY,  # object_not_in_prerequisite_state: what no server in recovery can tell
    "57P01": Verdict.HOST_OUT,  # admin_shutdown
    "57P02": Verdict.HOST_OUT,  # crash_shutdown
    "57P03": Verdict.HOST_OUT,  # cannot_connect_now
    "57P04": Verdict.HOST_OUT,  # database_dropped
}

# Not all of class 08 and XX: with a living connection those are the query's own (a foreign server that cannot be reached, bad input to
# an extension). 08P01 is what PgBouncer says of every trouble with its server.
HOST_OUT_STATES = frozenset({"08P01", "XX001", "XX002"})


def judge(sqlstate: str | None, *, connection_lost: bool) -> Verdict:
    """Return what to do. `connection_lost`: it could not be opened, or it broke."""
    if sqlstate is not None:
        verdict = BY_SQLSTATE.get(sqlstate)
        if verdict is not None:
            return verdict
        if sqlstate in HOST_OUT_STATES or sqlstate.startswith("58"):
            return Verdict.HOST_OUT
    return Verdict.HOST_OUT if connection_lost else Verdict.RAISE
