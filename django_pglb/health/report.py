"""What one look at every host says about the clusters: the result of `manage.py check_replicas`, as a value.

A single look has no history, so lag in seconds is the primary's clock minus the commit time of the last transaction that the replica
has replayed, and 0 where it has caught up. On a primary that rarely writes that overstates the lag of a replica that is just behind.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..core.assessment import assess, lag_bytes_of, leaderless_state
from ..core.history import ClusterHistory
from ..core.lsn import format_lsn
from ..core.topology import Host, HostState, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.config import ClusterConfig
    from ..core.history import HostHistory
    from ..core.probe import Probe
    from .target import Target

# Raised when a key of the JSON form changes its meaning or goes away; new keys may come at any time.
FORMAT_VERSION = 1

# As monitoring plugins use them: OK, WARNING, CRITICAL. 3, UNKNOWN, is for whoever could not make a report.
ALL_WELL, SOME_UNUSABLE, NONE_USABLE, COULD_NOT_TELL = 0, 1, 2, 3

# Refusing: it answers, and does not let the site do what it must.
STORE_ONLINE, STORE_OFFLINE, STORE_REFUSING = "online", "offline", "refusing"

FEEDBACK = "hot_standby_feedback is off: replay may cancel long reads here (SQLSTATE 40001)."
PAUSED = "Replay is paused: resume it with SELECT pg_wal_replay_resume()."
NO_RECEIVER = "No WAL receiver runs: this host is not connected to the primary."
NO_STATS = (
    "Grant pg_read_all_stats, on the primary, to the role that connects here:"
    " without it a new timeline is seen only minutes after a failover."
)
NO_CONTROL_DATA = (
    "Grant EXECUTE on pg_control_system(), pg_control_checkpoint() and pg_control_recovery() to the role that connects here:"
    " without it a foreign or diverged server is not recognised."
)
SYNCHRONOUS = (
    'CONSISTENCY is "monotonic" and synchronous_standby_names is not empty: replicas show a commit while the primary still waits for'
    " a standby, so a page that the primary answers may go back behind one of a replica. See the documentation on monotonic reads."
)
TOO_OLD = "PostgreSQL 14 or later is needed."
OLDEST_VERSION = 140000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """One host. `position` is where a replica has replayed to, and where a primary writes."""

    alias: str
    role: str
    state: str
    why: str
    address: str
    position: str | None = None
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    server_version: str | None = None
    timeline: int | None = None
    advice: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        return self.state == HostState.ONLINE


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Where a cluster's pointers live."""

    name: str
    state: str
    why: str = ""
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """One cluster: its primary first, then its replicas. `store` is None where the store is nothing that could fail."""

    primary: str
    max_lag_seconds: float | None
    hosts: tuple[HostReport, ...]
    store: StoreReport | None = None

    @property
    def status(self) -> int:
        """The exit status that this cluster alone would give."""
        # Without its store every identified user reads from the primary.
        has_store = self.store is None or self.store.state == STORE_ONLINE
        return max(self._hosts_status, ALL_WELL if has_store else SOME_UNUSABLE)

    @property
    def _hosts_status(self) -> int:
        primary, *replicas = self.hosts
        usable = sum(replica.is_usable for replica in replicas)
        if not primary.is_usable or (replicas and not usable):
            return NONE_USABLE
        return ALL_WELL if usable == len(replicas) else SOME_UNUSABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every cluster."""

    clusters: tuple[ClusterReport, ...]
    is_enabled: bool = True

    @property
    def status(self) -> int:
        """The exit status: the worst cluster's."""
        return max((cluster.status for cluster in self.clusters), default=COULD_NOT_TELL)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, whose keys are public."""
        clusters = [{**asdict(cluster), "status": cluster.status} for cluster in self.clusters]
        return {"version": FORMAT_VERSION, "status": self.status, "enabled": self.is_enabled, "clusters": clusters}


def report_cluster(
    config: ClusterConfig, targets: Sequence[Target], history: ClusterHistory, more_advice: Mapping[str, Sequence[str]]
) -> ClusterReport:
    """Return what `history`, made of one look at each of `targets`, says. `more_advice` is keyed by alias."""
    blank = Topology(
        primary=next(target.unknown() for target in targets if target.is_primary),
        replicas=tuple(target.unknown() for target in targets if not target.is_primary),
    )
    topology = assess(blank, history, None)
    hosts = tuple(_host(config, target, topology.by_alias[target.alias], history, more_advice.get(target.alias, ())) for target in targets)
    return ClusterReport(primary=config.primary, max_lag_seconds=config.max_lag_seconds, hosts=hosts)


def _host(config: ClusterConfig, target: Target, host: Host, history: ClusterHistory, more_advice: Sequence[str]) -> HostReport:
    past = history.primary if target.is_primary else history.of(target.alias)
    lag_seconds = host.lag_seconds if target.is_mirror else None
    state, why = host.state, host.why
    if past.is_reachable and not target.is_primary:
        lag_seconds = _lag_seconds(history, past)
        state, why = _replica_state(config, history, past, host, lag_seconds)
    probe = past.probe
    return HostReport(
        alias=target.alias,
        role="primary" if target.is_primary else "replica",
        state=str(state),
        why=why,
        address=target.address,
        position=None if host.replay_lsn is None else format_lsn(host.replay_lsn),
        lag_bytes=None if probe is None or target.is_primary else lag_bytes_of(history, probe),
        lag_seconds=None if lag_seconds is None else round(lag_seconds, 3),
        server_version=None if probe is None else _version(probe.server_version),
        timeline=host.timeline,
        advice=() if probe is None else (*_advice(config, probe), *more_advice),
    )


def _lag_seconds(history: ClusterHistory, replica: HostHistory) -> float | None:
    probe, leader = replica.probe, history.leader
    if probe is None or probe.lsn is None or leader is None or not probe.in_recovery:
        return None
    if replica.has_caught_up:
        return 0.0
    if probe.last_commit_seconds is None or leader.server_seconds is None:
        return None
    return max(0.0, leader.server_seconds + (probe.at - leader.at) - probe.last_commit_seconds)


def _replica_state(
    config: ClusterConfig, history: ClusterHistory, replica: HostHistory, host: Host, lag_seconds: float | None
) -> tuple[HostState, str]:
    if replica.misfit is not None or replica.probe is None or not replica.probe.in_recovery:
        return host.state, host.why
    if history.leader is None:
        return leaderless_state(history, replica, is_settled=True)
    if lag_seconds is None:
        return HostState.UNKNOWN, "is behind, and has not replayed a commit since it was started that would show for how long"
    limit = config.max_lag_seconds
    if limit is not None and lag_seconds > limit:
        return HostState.LAGGING, f"{lag_seconds:.1f} s behind, more than {limit:g} s"
    return HostState.ONLINE, f"{lag_seconds:.1f} s behind" if lag_seconds else "caught up"


def _advice(config: ClusterConfig, probe: Probe) -> list[str]:
    advice = [TOO_OLD] if (probe.server_version or OLDEST_VERSION) < OLDEST_VERSION else []
    if probe.system_identifier is None:
        advice.append(NO_CONTROL_DATA)
    if not probe.in_recovery:
        return [*advice, SYNCHRONOUS] if probe.waits_for_standbys and config.consistency == "monotonic" else advice
    if probe.is_replay_paused:
        advice.append(PAUSED)
    if not probe.has_receiver:
        advice.append(NO_RECEIVER)
    elif not probe.sees_receiver:
        advice.append(NO_STATS)
    if not probe.hot_standby_feedback:
        advice.append(FEEDBACK)
    return advice


def _version(number: int | None) -> str | None:
    return None if number is None else f"{number // 10000}.{number % 10000}"
