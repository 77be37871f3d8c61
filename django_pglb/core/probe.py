"""What one look at one host may bring back: an answer, a failure, or "not now"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a host answered. Times are seconds of the checker's clock, except those that the server told."""

    started_at: float
    at: float
    """When the answer was there: what it says was true at some moment between `started_at` and this."""
    latency_seconds: float | None = None
    """How long the answer took on a connection that was open."""
    in_recovery: bool
    lsn: int | None
    """The position that a standby has replayed; the normalised insert position of a server that takes writes."""
    received_lsn: int | None = None
    """The position that a standby has received by streaming since it started."""
    timeline: int | None = None
    """The timeline, as well as it can be known: see `is_timeline_certain`."""
    is_timeline_certain: bool = False
    """Whether `timeline` is true now. A standby's control data shows a new one only minutes later."""
    has_receiver: bool = False
    sees_receiver: bool = False
    """Whether the role may see more of the WAL receiver than that there is one (`pg_read_all_stats`)."""
    system_identifier: int | None = None
    database_oid: int | None = None
    """Which of its databases answered. It is the same number on a primary and its standbys, whatever a pooler calls the database."""
    database: str | None = None
    """What that server calls the database."""
    server_version: int | None = None
    waits_for_standbys: bool = False
    """Whether its commits may wait for a synchronous standby (`synchronous_standby_names`)."""
    hot_standby_feedback: bool = True
    is_replay_paused: bool = False
    is_replay_delayed: bool = False
    """Whether it is set to replay commits only some time after they were made (`recovery_min_apply_delay`)."""
    server_started_seconds: float | None = None
    """When its postmaster was started, by the server's clock (Unix time). The same number means the same run of the same server."""
    server_seconds: float | None = None
    """The server's clock (Unix time)."""
    last_commit_seconds: float | None = None
    """When the last replayed transaction was committed, by the primary's clock (Unix time)."""


class Failure(NamedTuple):
    """A host did not answer a probe, or failed a request. `why` holds nothing secret."""

    at: float
    why: str
    is_unreachable: bool = False
    """Whether a probe got no answer at all, so that nobody who waits for one may hope: not when it was only refused."""


class NotNow(NamedTuple):
    """A host is alive but could not answer: replay cancelled the probe, or it is just being promoted."""

    at: float


Outcome = Probe | Failure | NotNow
