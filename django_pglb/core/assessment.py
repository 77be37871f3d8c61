"""From what the probes have told to a topology: which hosts may be read from, how far behind they are, and why.

1. Lag is the age of the oldest sampled position of the primary that a replica has not replayed. Both ends are sampled here:
   no clock of another machine, no false lag on an idle primary, no false zero on a replica whose upstream is cut.
2. A replica is online only once it has replayed a sampled position. While the primary cannot be reached: once it has stopped replaying
   at the end of what it received, and no reachable replica is ahead of it.
3. When the primary falls silent, no new sample comes. The lag of a replica that has replayed all it received stays what it was when the
   primary last answered: nothing fresher exists. One that has more to replay goes on ageing.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from .topology import Host, HostState, Topology
from .weight import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .history import ClusterHistory, HostHistory
    from .probe import Probe
    from .topology import Sample


# A replica that has left for its lag is back below this share of the limit. Lag grows by a second a second at most, so one whose lag goes
# up and down stays away or in use for half of the limit's seconds at least.
RETURN_SHARE = 0.5


def assess(blank: Topology, history: ClusterHistory, max_lag_seconds: float | None, before: Topology | None = None) -> Topology:
    """Return the topology that `history` shows, and that follows `before`.

    `blank` names the cluster's hosts, as they look before anything is known.
    """
    fastest = _fastest_seconds(history)
    before = blank if before is None else before
    replicas = (_replica(host, history, max_lag_seconds, before.by_alias[host.alias]) for host in blank.replicas)
    return Topology(
        primary=_primary(blank.primary, history),
        replicas=tuple(_weighed(host, fastest) for host in replicas),
        samples=history.samples,
        as_of=history.as_of,
    )


def _fastest_seconds(history: ClusterHistory) -> float | None:
    latencies = (host.latency_seconds for host in history.replicas.values() if host.is_reachable)
    return min((latency for latency in latencies if latency is not None), default=None)


def _weighed(host: Host, fastest: float | None) -> Host:
    """Return `host` with less weight if it is much slower than the fastest."""
    kept = share(host.latency_seconds, fastest)
    if kept == 1 or host.latency_seconds is None or fastest is None or not host.is_online:
        return host
    slow = f"answers in {host.latency_seconds * 1000:.0f} ms, the fastest in {fastest * 1000:.0f} ms: weight {host.weight * kept:.2g}"
    return replace(host, weight=host.weight * kept, why=f"{host.why}; {slow}")


def _primary(blank: Host, history: ClusterHistory) -> Host:
    host, leader = history.primary, history.leader
    state, why = _primary_state(host)
    if leader is None:
        return replace(blank, state=state, why=why)
    return replace(
        blank,
        state=state,
        why=why,
        sampled_at=leader.at,
        replay_lsn=leader.lsn,
        lag_seconds=0.0,
        lag_bytes=0,
        delay_seconds=0.0,
        timeline=leader.timeline,
        system_identifier=leader.system_identifier,
        server_version=leader.server_version,
        waits_for_standbys=leader.waits_for_standbys,
    )


def _primary_state(host: HostHistory) -> tuple[HostState, str]:
    if host.failure is not None:
        return HostState.OFFLINE, host.failure.why
    if host.probe is None:
        return HostState.UNKNOWN, "not probed yet"
    if host.probe.in_recovery:
        return HostState.OFFLINE, "is a standby (in recovery), not a primary"
    return HostState.ONLINE, "takes writes"


def _replica(blank: Host, history: ClusterHistory, max_lag_seconds: float | None, before: Host) -> Host:
    if blank.is_mirror:
        return replace(blank, state=HostState.ONLINE, why="test mirror of the primary", lag_seconds=0.0, lag_bytes=0, delay_seconds=0.0)
    host = history.of(blank.alias)
    probe, lag_seconds = host.probe, lag_seconds_of(history, host)
    delay_seconds = None if probe is None else delay_seconds_of(history, probe)
    has_lagged = _has_lagged(before, lag_seconds, delay_seconds, max_lag_seconds)
    state, why = _replica_state(history, host, lag_seconds, max_lag_seconds, has_lagged=has_lagged)
    if probe is None:
        return replace(blank, state=state, why=why, has_lagged=has_lagged)
    return replace(
        blank,
        state=state,
        why=why,
        has_lagged=has_lagged,
        sampled_at=probe.at,
        replay_lsn=_replayed_lsn(probe),
        lag_seconds=lag_seconds,
        lag_bytes=lag_bytes_of(history, probe),
        delay_seconds=delay_seconds,
        latency_seconds=host.latency_seconds,
        timeline=probe.timeline,
        system_identifier=probe.system_identifier,
        server_version=probe.server_version,
        is_promoted=not probe.in_recovery,
    )


def _replayed_lsn(probe: Probe) -> int | None:
    # The position of a promoted server is on a history of its own, and says nothing about the primary's.
    return probe.lsn if probe.in_recovery else None


def _has_lagged(before: Host, lag_seconds: float | None, delay_seconds: float | None, max_lag_seconds: float | None) -> bool:
    """Say whether the replica has been beyond the limit, and not clearly below it since."""
    if lag_seconds is None or max_lag_seconds is None:
        return before.has_lagged and max_lag_seconds is not None
    if lag_seconds > max_lag_seconds:
        return True
    # Lag in seconds goes in steps of the interval between two looks, and just after a step it looks small.
    return before.has_lagged and max(lag_seconds, delay_seconds or 0.0) >= RETURN_SHARE * max_lag_seconds


def _replica_state(
    history: ClusterHistory, host: HostHistory, lag_seconds: float | None, max_lag_seconds: float | None, *, has_lagged: bool
) -> tuple[HostState, str]:
    if host.failure is not None:
        return HostState.OFFLINE, host.failure.why
    if host.misfit is not None:
        return host.misfit.state, host.misfit.why
    if host.probe is None:
        return HostState.UNKNOWN, "not probed yet" if host.alive_at is None else "is alive, but replay cancels every probe"
    if not host.probe.in_recovery:
        return _promoted_state(history)
    if lag_seconds is not None and max_lag_seconds is not None and lag_seconds > max_lag_seconds:
        return HostState.LAGGING, f"{lag_seconds:.1f} s behind, more than MAX_LAG_SECONDS ({max_lag_seconds:g})"
    if lag_seconds is not None and max_lag_seconds is not None and has_lagged and history.is_primary_alive:
        why = f"{lag_seconds:.1f} s behind; was more than MAX_LAG_SECONDS ({max_lag_seconds:g}), and returns below half of that"
        return HostState.LAGGING, why
    if not (host.has_caught_up or history.is_primary_alive):
        return leaderless_state(history, host, is_settled=_is_settled(history, host))
    if not host.has_caught_up:
        return HostState.UNKNOWN, "has not yet replayed a position of the primary that this process has seen"
    return HostState.ONLINE, f"{lag_seconds:.1f} s behind" if lag_seconds else "caught up"


def _promoted_state(history: ClusterHistory) -> tuple[HostState, str]:
    if history.primary.probe is None and history.primary.failure is None:
        return HostState.UNKNOWN, "takes writes of its own; the primary was not probed yet"
    if history.is_primary_deposed:
        return HostState.ONLINE, "promoted, and the primary has become a standby"
    return HostState.ONLINE, "promoted, and the primary does not answer"


def leaderless_state(history: ClusterHistory, host: HostHistory, *, is_settled: bool) -> tuple[HostState, str]:
    """Return what a reachable standby may be used for that can be compared with no primary: none answers, or none was seen yet.

    `is_settled`: it has stopped replaying. After a crash a standby replays its own files first, and knows of nothing received.
    """
    if history.primary.failure is None and history.primary.probe is None:
        return HostState.UNKNOWN, "the primary was not probed yet"
    if not (is_settled and _has_replayed_all_it_received(host)):
        return HostState.UNKNOWN, "the primary cannot be reached, and this replica is still replaying"
    ahead = [alias for alias, other in history.replicas.items() if _is_ahead(other, host)]
    if ahead:
        return HostState.UNKNOWN, f"the primary cannot be reached, and {ahead[0]} is ahead of this replica"
    return HostState.ONLINE, "has replayed all it received; the primary cannot be reached"


def _is_settled(history: ClusterHistory, host: HostHistory) -> bool:
    # Both answers from after the primary was lost: it may have stumbled only, and who is far behind must not be read for that.
    if host.probe is None or host.earlier is None or host.earlier.at < (history.primary.failed_since or 0):
        return False
    return host.probe.lsn == host.earlier.lsn


def _has_replayed_all_it_received(host: HostHistory) -> bool:
    probe = host.probe
    if probe is None or probe.lsn is None or probe.is_replay_paused:
        return False
    return probe.lsn >= (probe.received_lsn or 0) or _is_left_with_half_a_record(probe, host.earlier)


def _is_left_with_half_a_record(probe: Probe, earlier: Probe | None) -> bool:
    """Say whether what was received and not replayed is nothing that could be: its primary died in the middle of a record."""
    if earlier is None or probe.has_receiver or probe.is_replay_delayed:
        return False
    return (probe.lsn, probe.received_lsn) == (earlier.lsn, earlier.received_lsn)


def _is_ahead(other: HostHistory, host: HostHistory) -> bool:
    if not other.is_reachable or other.probe is None or host.probe is None:
        return False
    return other.probe.in_recovery and (other.probe.lsn or 0) > (host.probe.lsn or 0)


def lag_seconds_of(history: ClusterHistory, host: HostHistory) -> float | None:
    """Return the age of the oldest sampled position that the replica had not replayed when it was last alive; None if unknown."""
    probe, leader = host.probe, history.leader
    lsn = None if probe is None else _replayed_lsn(probe)
    if probe is None or lsn is None or leader is None:
        return None
    as_of = max(probe.at, host.alive_at or probe.at)
    if not history.is_primary_alive and _has_replayed_all_it_received(host):
        as_of = min(as_of, leader.at)
    samples = history.samples
    oldest = _replayed_count(samples, lsn)
    return max(0.0, as_of - samples[oldest].at) if oldest < len(samples) else 0.0


def lag_bytes_of(history: ClusterHistory, probe: Probe) -> int | None:
    """Return how far the replica is behind the newest sample, never less than 0; None if unknown."""
    lsn = _replayed_lsn(probe)
    if lsn is None or not history.samples:
        return None
    return max(0, history.samples[-1].lsn - lsn)


def delay_seconds_of(history: ClusterHistory, probe: Probe) -> float | None:
    """Guess how long before its answer the primary had the position that the replica had; None if that cannot be told.

    0 when it had replayed everything sampled by then, as far as can be told. None also while the primary is silent: what it had not sent
    will not come.
    """
    samples, lsn = history.samples, _replayed_lsn(probe)
    if lsn is None or not history.is_primary_alive:
        return None
    after = _replayed_count(samples, lsn)
    if after == 0:
        return None
    if after == len(samples):
        return 0.0
    before, beyond = samples[after - 1], samples[after]
    if lsn == before.lsn and beyond.at > probe.at:
        # An idle primary, which may have gone on only after the answer: nobody is behind for lack of that.
        return 0.0
    # Anything between two samples shows that the primary went on before the answer, also where `beyond` came after it. In one round of
    # looks the primary's answer comes a hair later than the replica's as often as not, which must not make the replica a caught-up one.
    passed = (lsn - before.lsn) / (beyond.lsn - before.lsn)
    # The primary does not write evenly, so it may seem to have got there only after the answer.
    return max(0.0, probe.at - (before.at + passed * (beyond.at - before.at)))


def _replayed_count(samples: Sequence[Sample], lsn: int) -> int:
    return bisect_right(samples, lsn, key=attrgetter("lsn"))
