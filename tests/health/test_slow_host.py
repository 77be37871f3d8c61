"""A replica that is merely slow."""

from __future__ import annotations

import pytest

from django_pglb.testing import PLAIN_ROLE, Cluster, wait_until

from .aids import checking, forget_log, host_of, lines_about, slow_path, target_at, target_of, wait_until_online, watch_log


def test_slow_replica_loses_weight_and_gets_it_back(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """It stays online, the reason says how slow it is, and no line is logged."""
    watch_log(caplog)
    fast, slow = healed_cluster.replicas
    with slow_path(slow.port) as path:
        behind_it = target_at("replica2", "127.0.0.1", path.port, dbname="postgres", user=PLAIN_ROLE)
        with checking([target_of(healed_cluster.primary), target_of(fast), behind_it]) as checker:
            wait_until_online(checker)
            wait_until(
                lambda: host_of(checker, "replica2").weight == 1, timeout=30, what="first looks at connections that were just opened"
            )
            forget_log(caplog, checker)
            path.seconds = 0.4
            wait_until(lambda: host_of(checker, "replica2").weight < 0.2, timeout=60, what="the slow replica to lose weight")
            host = host_of(checker, "replica2")
            assert host.is_online
            assert "ms, the fastest in" in host.why
            assert host_of(checker, "replica1").weight == 1
            path.seconds = 0
            wait_until(lambda: host_of(checker, "replica2").weight == 1, timeout=60, what="the replica to get its weight back")
            assert "fastest" not in host_of(checker, "replica2").why
    assert lines_about(caplog, "replica2") == []
