"""Routing answers: an alias and the reason for it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why a statement went where it went. The words are public: logs, headers, metrics, tests and docs use them; none is renamed."""

    # They are counted for every statement, and that of an enumeration is written in Python.
    __hash__ = str.__hash__

    REPLICA = "replica"  # a replica that has reached the reader's pointer, or the reader has none
    STALE_ALLOWED = "stale_allowed"  # inside use_replicas()
    OUTSIDE_SESSION = "outside_session"  # no routing session is open
    FORCED_PRIMARY = "forced_primary"  # inside use_primary()
    TRANSACTION = "transaction"  # the primary's connection is in a transaction
    SESSION_STATE = "session_state"  # this unit of work, or an earlier one on the primary's connection, has changed its database session
    INSTANCE = "instance"  # related reads of an object that was loaded from the primary
    WROTE = "wrote"  # this unit of work has written
    UNSAFE_METHOD = "unsafe_method"  # the request's method is not in REPLICA_METHODS
    BEHIND = "behind"  # no online replica has reached the reader's pointer
    NO_REPLICA = "no_replica"  # no replica is online
    STORE_ERROR = "store_error"  # the store could not tell the reader's pointer
    WRITE = "write"  # not provably a read
    FAILOVER = "failover"  # the replica that was chosen failed, another host answered
    EXPLICIT = "explicit"  # the caller named the primary: using(), connections[...]


class Decision(NamedTuple):
    """Where a statement goes and why."""

    alias: str
    reason: Reason


class DecisionCount(NamedTuple):
    """How many statements of a unit of work an alias has answered for one reason."""

    alias: str
    reason: Reason
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody calls on this
