"""The settings as one frozen, typed value, and what is wrong with them as data.

Nothing here reads Django's settings; `conf.py` does, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .job import Consistency
from .lsn import marks_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """One entry of `REPLICAS`."""

    alias: str
    weight: float = 1.0
    pooled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """The `STORE` key: a dotted path and its options (lower-case names)."""

    backend: str = "django_pglb.stores.CacheStore"
    options: dict[str, Any] = field(default_factory=lambda: {"cache": "default"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """One entry of the `PGLB` setting."""

    primary: str
    replicas: tuple[ReplicaConfig, ...]
    prepare: str | None = None
    consistency: str = "read_your_writes"
    pointer_seconds: float = 3600
    sticky_seconds: float = 30
    max_lag_seconds: float | None = 20
    check_interval: float = 1.0
    check_timeout: float = 1.0
    wait_seconds: float = 0
    read_timeout: float | None = None
    replica_methods: frozenset[str] = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
    store: StoreConfig = field(default_factory=StoreConfig)
    cookie: bool = True
    on_store_error: str = "primary"
    identity: str = "django_pglb.identity.from_request"
    primary_attempts: int = 3
    primary_backoff: float = 0.1
    primary_fallback_limit: int | None = None
    guard_stale_saves: str = "off"
    debug_header: bool = False

    @property
    def aliases(self) -> tuple[str, ...]:
        return (self.primary, *(replica.alias for replica in self.replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the package was told. `clusters` is empty when `PGLB` is missing or `PGLB_ENABLED` is false."""

    enabled: bool = True
    task_consistency: Consistency = Consistency.ALWAYS
    clusters: dict[str, ClusterConfig] = field(default_factory=dict)
    switched_off: dict[str, ClusterConfig] = field(default_factory=dict)
    """What would be in `clusters` if `PGLB_ENABLED` were not false, as far as it is usable."""
    pointer_header: str | None = None
    """The header in which clients carry their pointer, too; None: no header does."""
    primary_of: dict[str, str] = field(init=False)
    """Every configured alias -> the primary of its cluster (a primary is its own)."""
    home_of: dict[str, str] = field(init=False)
    """The same, and the aliases of clusters that are switched off: their primaries answer for them."""
    replicas: dict[str, ReplicaConfig] = field(init=False)
    """Every replica's alias -> its entry."""
    prepares: dict[str, str] = field(init=False)
    """Every alias whose sessions are prepared, also where the cluster is switched off -> the path of what does that."""
    marks: dict[str, int] = field(init=False)
    """Every replica's alias -> what tells it from its peers in a position that was seen on it."""
    has_debug_header: bool = field(init=False)
    """Whether any cluster has `DEBUG_HEADER`."""
    _safe_in: dict[str | None, frozenset[str]] = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        clusters = self.clusters.values()
        object.__setattr__(self, "primary_of", _homes(self.clusters))
        object.__setattr__(self, "home_of", _homes(self.named_clusters))
        named = self.named_clusters.values()
        prepares = {alias: cluster.prepare for cluster in named if cluster.prepare is not None for alias in cluster.aliases}
        object.__setattr__(self, "prepares", prepares)
        marks = [marks_of(replica.alias for replica in cluster.replicas) for cluster in clusters]
        object.__setattr__(self, "marks", {alias: mark for of_cluster in marks for alias, mark in of_cluster.items()})
        object.__setattr__(self, "has_debug_header", any(cluster.debug_header for cluster in clusters))
        object.__setattr__(self, "replicas", {replica.alias: replica for cluster in clusters for replica in cluster.replicas})

    def safe_in(self, method: str | None) -> frozenset[str]:
        """Return the primaries of the clusters that read from replicas in a request with this method."""
        found = self._safe_in.get(method)
        return self._remember_safe_in(method) if found is None else found

    def _remember_safe_in(self, method: str | None) -> frozenset[str]:
        found = frozenset(primary for primary, cluster in self.clusters.items() if method in cluster.replica_methods)
        if found:
            # Not what anybody may make up: those are no cluster's.
            self._safe_in[method] = found
        return found

    @property
    def named_clusters(self) -> dict[str, ClusterConfig]:
        """Every cluster that `PGLB` names, whether or not it is switched off."""
        return self.clusters or self.switched_off

    def as_if_on(self) -> Config:
        """Return what would be in force if nothing were switched off."""
        return self if self.enabled else replace(self, enabled=True, clusters=self.switched_off, switched_off={})

    @property
    def longest_pointer_seconds(self) -> float:
        """How long a text that carries pointers of several clusters is worth reading."""
        return max((cluster.pointer_seconds for cluster in self.clusters.values()), default=0)


def _homes(clusters: dict[str, ClusterConfig]) -> dict[str, str]:
    return {alias: cluster.primary for cluster in clusters.values() for alias in cluster.aliases}
