"""What the probes of one cluster have told so far, as one immutable value that grows by one outcome at a time.

1. Positions of different servers compare only if they share their history: system identifier, timeline, and who was there first.
2. What was proved while the primary answered stays true while it does not, unless it says itself that it has become a standby.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .misfit import Ahead, Misfit, ahead_of, is_other_history, misfit_by_name, misfit_of
from .probe import Failure, NotNow, Outcome, Probe
from .topology import Sample
from .weight import smoothed

if TYPE_CHECKING:
    from collections.abc import Mapping

# Long enough to tell the lag of a replica well beyond the point where it is out.
MIN_HORIZON_SECONDS = 60.0
HORIZON_IN_MAX_LAGS = 3

# So many samples at most, however short the probe interval and long the horizon.
MAX_SAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostHistory:
    """What is remembered of one host."""

    probe: Probe | None = None
    """Its latest answer."""
    earlier: Probe | None = None
    """The answer before that."""
    failure: Failure | None = None
    """Its latest failure, unless a probe that was started later has succeeded."""
    failed_since: float | None = None
    """When the first of these failures was, of which it has not recovered."""
    alive_at: float | None = None
    """When it last showed that it is alive, also by "not now"."""
    has_caught_up: bool = False
    """Whether it has replayed a sampled position since it last came back."""
    wanted_lsn: int | None = None
    """That position: the oldest that was known when it came back. Younger ones may be all that is remembered by the time it gets there."""
    latency_seconds: float | None = None
    """How long its answers take, smoothed."""
    ahead: Ahead | None = None
    """What it has shown if it was found ahead of the primary."""
    misfit: Misfit | None = None

    @property
    def is_reachable(self) -> bool:
        return self.probe is not None and self.failure is None

    @property
    def proved_misfit(self) -> Misfit | None:
        return self.misfit if self.misfit is not None and self.misfit.is_proved else None


UNSEEN = HostHistory()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterHistory:
    """What is remembered of one cluster."""

    database: str | None = None
    """What the settings of the primary call its database."""
    primary: HostHistory = UNSEEN
    replicas: Mapping[str, HostHistory] = field(default_factory=dict)
    leader: Probe | None = None
    """The latest answer of the primary that showed it taking writes."""
    had_other_timeline: bool = False
    """Whether the primary was seen on another timeline than now."""
    samples: tuple[Sample, ...] = ()
    as_of: float | None = None
    """When the latest look ended."""

    @property
    def is_primary_deposed(self) -> bool:
        """Whether the primary was alive and says now that it is a standby: somebody else may have taken its place."""
        return self.leader is not None and self.primary.probe is not None and self.primary.probe.in_recovery

    @property
    def is_primary_alive(self) -> bool:
        return self.leader is not None and self.primary.probe is self.leader and self.primary.failure is None

    def of(self, alias: str) -> HostHistory:
        """Return what is remembered of the replica `alias`."""
        return self.replicas.get(alias, UNSEEN)


def horizon_seconds(max_lag_seconds: float | None) -> float:
    """Return how far back the primary's positions must be remembered."""
    return max(MIN_HORIZON_SECONDS, HORIZON_IN_MAX_LAGS * (max_lag_seconds or 0))


def looked_at(history: ClusterHistory, at: float, trusted_seconds: float) -> ClusterHistory:
    """Return `history` when a look has ended at `at`.

    If nobody had looked for longer than `trusted_seconds`, what was known of the hosts is forgotten, but for what was proved: a replica
    may have been cut off all the while, and would seem to be behind only since now.
    """
    if history.as_of is None or at - history.as_of <= trusted_seconds:
        return replace(history, as_of=at)
    replicas = {
        alias: HostHistory(latency_seconds=host.latency_seconds, ahead=host.ahead, misfit=host.proved_misfit)
        for alias, host in history.replicas.items()
    }
    return replace(history, as_of=at, primary=UNSEEN, replicas=replicas, samples=())


def record_primary(history: ClusterHistory, outcome: Outcome, horizon: float) -> ClusterHistory:
    """Return `history` with what a probe of the primary brought back."""
    history = replace(history, primary=_noted(history.primary, outcome))
    if isinstance(outcome, Probe) and not outcome.in_recovery and history.primary.probe is outcome:
        history = _followed(history, outcome, horizon)
    replicas = {alias: _judged(history, host) for alias, host in history.replicas.items()}
    return replace(history, replicas=replicas)


def record_replica(history: ClusterHistory, alias: str, outcome: Outcome) -> ClusterHistory:
    """Return `history` with what a probe of the replica `alias` brought back."""
    host = _judged(history, _noted(history.of(alias), outcome))
    return replace(history, replicas={**history.replicas, alias: host})


def _noted(host: HostHistory, outcome: Outcome) -> HostHistory:
    if isinstance(outcome, Failure):
        latest = outcome if host.failure is None else max(host.failure, outcome)
        first = outcome.at if host.failed_since is None else host.failed_since
        return replace(host, failure=latest, failed_since=first, has_caught_up=False, wanted_lsn=None)
    if isinstance(outcome, NotNow):
        return replace(host, alive_at=outcome.at)
    if _went_back(host.probe, outcome):
        # It was restarted after a crash, or is another server: what it had shown is worth nothing.
        host = replace(host, has_caught_up=False, wanted_lsn=None)
    if host.probe is not None and outcome.in_recovery and not host.probe.in_recovery:
        # It took writes and was made a standby: nothing that was proved before is true of what it has now.
        host = replace(host, misfit=None)
    outcome = _with_timeline_known_before(host.probe, outcome)
    still = host.failure if host.failure is not None and host.failure.at > outcome.started_at else None
    since = None if still is None else host.failed_since
    latency = host.latency_seconds if outcome.latency_seconds is None else smoothed(host.latency_seconds, outcome.latency_seconds)
    return replace(host, probe=outcome, earlier=host.probe, failure=still, failed_since=since, alive_at=outcome.at, latency_seconds=latency)


def _with_timeline_known_before(before: Probe | None, now: Probe) -> Probe:
    """Return `now` with the timeline that the same run of a standby was seen on before: without a receiver only its control data tells.

    That shows a new timeline minutes after a failover, and a standby does not go back to an old one while it runs.
    """
    if before is None or before.timeline is None or now.is_timeline_certain or not now.in_recovery:
        return now
    is_same_run = now.server_started_seconds is not None and now.server_started_seconds == before.server_started_seconds
    return replace(now, timeline=before.timeline) if is_same_run and (now.timeline or 0) < before.timeline else now


def _went_back(before: Probe | None, now: Probe) -> bool:
    return before is not None and before.lsn is not None and now.lsn is not None and now.lsn < before.lsn


def _followed(history: ClusterHistory, leader: Probe, horizon: float) -> ClusterHistory:
    """Return `history` after the primary has shown itself as `leader`."""
    before = history.leader
    history = replace(history, leader=leader)
    if before is not None and is_other_history(before, leader):
        # What was known of the replicas was known about another primary.
        replicas = {alias: replace(host, has_caught_up=False, wanted_lsn=None, ahead=None) for alias, host in history.replicas.items()}
        history = replace(history, samples=(), replicas=replicas, had_other_timeline=True)
    if leader.lsn is None:
        return history
    return replace(history, samples=with_sample(history.samples, Sample(leader.at, leader.lsn), horizon))


def with_sample(samples: tuple[Sample, ...], new: Sample, horizon: float) -> tuple[Sample, ...]:
    """Return `samples` and `new`, without what is too old or beyond `new` (lost in a crash).

    At most two samples show the same position, the first and the last, and neighbours but one are never closer than the resolution.
    """
    kept = [sample for sample in samples if sample.lsn <= new.lsn]
    if len(kept) >= 2 and (kept[-2].lsn == new.lsn or new.at - kept[-2].at < horizon / MAX_SAMPLES):
        kept.pop()
    # One sample older than the horizon stays, so that the samples always cover it.
    while len(kept) >= 2 and kept[1].at <= new.at - horizon:
        kept.pop(0)
    return (*kept, new)


def _judged(history: ClusterHistory, host: HostHistory) -> HostHistory:
    """Return the replica `host` as it looks beside what is known of its primary."""
    leader, probe = history.leader, host.probe
    if probe is None:
        return host
    if leader is None:
        return replace(host, misfit=misfit_by_name(history.database, host))
    host = replace(host, ahead=ahead_of(leader, host))
    if host.failure is None and history.samples:
        oldest = history.samples[0].lsn
        wanted = oldest if host.wanted_lsn is None else min(host.wanted_lsn, oldest)
        reached = probe.lsn is not None and probe.lsn >= wanted
        host = replace(host, wanted_lsn=wanted, has_caught_up=host.has_caught_up or reached)
    proved = None if history.is_primary_deposed else host.proved_misfit
    strictly = history.is_primary_alive or proved is not None
    found = misfit_of(leader, host, strictly=strictly, had_other_timeline=history.had_other_timeline)
    if found is not None and not found.is_proved and proved is not None:
        found = proved
    return replace(host, misfit=found)
