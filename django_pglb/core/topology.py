"""What is known of a cluster's hosts: one immutable snapshot, and what can be guessed from it.

A topology chooses; it never proves. Whether a replica has reached a pointer is proved by the read itself.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter

from .lsn import ANYBODY, Pointer


class HostState(StrEnum):
    """Whether a host may be read from: only an `online` one may."""

    UNKNOWN = "unknown"
    ONLINE = "online"
    LAGGING = "lagging"
    OFFLINE = "offline"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Sample:
    """A position of the primary that this process has seen, and when (seconds, the checker's clock)."""

    at: float
    lsn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of one host.

    `sampled_at` is when it last answered a probe and `replay_lsn` where it then was (the insert position on a primary).
    `lag_seconds` is the age of the oldest sampled position of the primary that it had not replayed then.
    `delay_seconds` is the same interpolated between samples: an estimate, finer than the probe interval, used only to guess.
    `mark` tells it from its peers in a position that was seen on it.
    `weight` is the configured one, less while the host is much slower than its peers; `latency_seconds` is how long its answers take.
    """

    alias: str
    state: HostState = HostState.UNKNOWN
    why: str = "not probed yet"
    is_primary: bool = False
    is_mirror: bool = False
    weight: float = 1.0
    pooled: bool = False
    mark: int = ANYBODY
    sampled_at: float | None = None
    replay_lsn: int | None = None
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    delay_seconds: float | None = None
    latency_seconds: float | None = None
    timeline: int | None = None
    system_identifier: int | None = None
    server_version: int | None = None
    has_lagged: bool = False
    """Whether it has been further behind than it may be, and is not clearly below that again."""
    waits_for_standbys: bool = False
    """Whether it is a primary whose commits may wait for a synchronous standby, and then show on replicas first."""
    is_promoted: bool = False
    """Whether it is configured as a replica and its latest answer says that it takes writes."""

    @property
    def is_online(self) -> bool:
        return self.state is HostState.ONLINE

    def has_probably_reached(self, pointer: Pointer, written_at: float, now: float) -> bool:
        """Guess whether this host has replayed `pointer`, which was written at `written_at`."""
        if self.is_mirror or pointer.was_seen_on(self.mark):
            return True
        if self.replay_lsn is not None and self.replay_lsn >= pointer.lsn_on(self.mark):
            return True
        # A replica that was `delay_seconds` behind at its last probe has by now replayed what the primary wrote that long ago.
        return self.delay_seconds is not None and written_at <= now - self.delay_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """One immutable snapshot of a cluster. Any thread may read it without a lock."""

    primary: Host
    replicas: tuple[Host, ...]
    samples: tuple[Sample, ...] = ()
    """Sampled positions of the primary, oldest first, both fields ascending."""
    as_of: float | None = None
    """When the latest look at any of the hosts ended (the checker's clock); None where nobody looks."""
    online: tuple[Host, ...] = field(init=False)
    by_alias: dict[str, Host] = field(init=False)
    system_identifier: int | None = field(init=False)
    """The system that the primary is of, or else the replicas in the rotation; None if no server says."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "online", tuple(host for host in self.replicas if host.is_online))
        systems = (host.system_identifier for host in (self.primary, *self.online))
        object.__setattr__(self, "system_identifier", next((system for system in systems if system is not None), None))
        object.__setattr__(self, "by_alias", {host.alias: host for host in (self.primary, *self.replicas)})

    def is_stale(self, now: float, limit: float) -> bool:
        """Say whether nobody has looked for `limit` seconds: the checker hangs, or the process or its machine has slept."""
        return self.as_of is not None and now - self.as_of > limit

    def written_at(self, pointer: Pointer) -> float:
        """Return when `pointer` was written: as it says itself, else the first sample at or past it, else (unseen yet) the last one."""
        if pointer.written_at or not self.samples:
            return pointer.written_at
        index = bisect_left(self.samples, pointer.lsn, key=attrgetter("lsn"))
        return self.samples[min(index, len(self.samples) - 1)].at

    def reached(self, pointer: Pointer | None, now: float) -> tuple[Host, ...]:
        """Return the online replicas that have probably replayed `pointer`."""
        if pointer is None:
            return self.online
        written_at = self.written_at(pointer)
        return tuple(host for host in self.online if host.has_probably_reached(pointer, written_at, now))
