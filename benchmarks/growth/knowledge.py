"""What one process knows of a cluster: the package's own rules, fed with probes that nobody had to send."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from django_pglb.core.assessment import assess
from django_pglb.core.config import ClusterConfig
from django_pglb.core.history import ClusterHistory, horizon_seconds, looked_at, record_primary, record_replica
from django_pglb.core.probe import Probe
from django_pglb.core.topology import Host, Topology

PRIMARY = "default"
TIMELINE = 1
DEFAULTS = ClusterConfig(primary=PRIMARY, replicas=())


def names(count: int) -> list[str]:
    """Return the aliases of so many replicas."""
    return [f"replica{number}" for number in range(1, count + 1)]


class Knowledge:
    """What a process has been told by its probes, and the topology that follows."""

    def __init__(self, aliases: Sequence[str]) -> None:
        self._blank = Topology(primary=Host(alias=PRIMARY, is_primary=True), replicas=tuple(Host(alias=alias) for alias in aliases))
        self.history = ClusterHistory()
        self.topology = self._blank

    def look(self, primary: Probe, replicas: Iterable[tuple[str, Probe]]) -> None:
        """Take in one look at every host as the checker does with answers that come together: with one new topology."""
        self._tell_primary(primary)
        for alias, answer in replicas:
            self._tell_replica(alias, answer)
        self._assess()

    def _tell_primary(self, answer: Probe) -> None:
        self.history = record_primary(self._looked(answer), answer, horizon_seconds(DEFAULTS.max_lag_seconds))

    def _tell_replica(self, alias: str, answer: Probe) -> None:
        self.history = record_replica(self._looked(answer), alias, answer)

    def _looked(self, answer: Probe) -> ClusterHistory:
        return looked_at(self.history, answer.at, math.inf)

    def _assess(self) -> None:
        self.topology = assess(self._blank, self.history, DEFAULTS.max_lag_seconds, self.topology)


def probe(lsn: int, started_at: float, at: float, *, in_recovery: bool) -> Probe:
    """Return the answer of a host that is well."""
    return Probe(
        started_at=started_at,
        at=at,
        latency_seconds=at - started_at,
        in_recovery=in_recovery,
        lsn=lsn,
        received_lsn=lsn if in_recovery else None,
        timeline=TIMELINE,
        is_timeline_certain=True,
        has_receiver=in_recovery,
        sees_receiver=in_recovery,
        system_identifier=7_000_000_000_000_000_000,
        server_version=180000,
        server_started_seconds=1.0,
        server_seconds=at,
        last_commit_seconds=at,
    )
