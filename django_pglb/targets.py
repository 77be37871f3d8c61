"""Django's connection settings as targets for the checker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper

from .core.lsn import marks_of
from .health.target import Target, target_from_params

if TYPE_CHECKING:
    from .core.config import ClusterConfig


def cluster_targets(cluster: ClusterConfig) -> list[Target]:
    """Return the hosts of `cluster`, the primary first. Never connects. Raises `ImproperlyConfigured` for unusable settings."""
    marks = marks_of(replica.alias for replica in cluster.replicas)
    return [
        _target(cluster.primary, is_primary=True),
        *(_target(replica.alias, weight=replica.weight, pooled=replica.pooled, mark=marks[replica.alias]) for replica in cluster.replicas),
    ]


def _target(alias: str, **known: Any) -> Target:
    wrapper = cast("DatabaseWrapper", connections[alias])
    # Django's own method: ours asks the runtime, which may be asking for these targets while it is being built.
    params = DatabaseWrapper.get_connection_params(wrapper)
    is_mirror = getattr(wrapper, "pglb_mirror_of", None) is not None
    return target_from_params(alias, params, is_mirror=is_mirror, **known)
