"""The primary dies, and replicas are all there is."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from django_pglb.core.lsn import parse_lsn
from django_pglb.core.topology import HostState
from django_pglb.health.checker import Checker
from django_pglb.health.collect import collect
from django_pglb.testing import Cluster, Replica, wait_until

from .aids import PRIMARY, checking, config_for, host_of, targets_of, wait_for_states, wait_until_online

ENOUGH_TRIES = 20


def die_in_the_middle_of_a_record(cluster: Cluster) -> None:
    """Kill the primary under a bulk load until the replicas have bytes that they can never replay."""
    for _ in range(ENOUGH_TRIES):
        loading = threading.Thread(target=load, args=(cluster,))
        loading.start()
        replica = cluster.replicas[0]
        before = replica.replay_lsn
        wait_until(lambda replica=replica, before=before: received(replica) > before + 30_000_000, timeout=30, what="the load to arrive")
        cluster.primary.kill()
        loading.join()
        wait_until(lambda replica=replica: has_stopped(replica), timeout=30, what="the replica to replay what it can")
        if all(received(host) > host.replay_lsn for host in cluster.replicas):
            return
        cluster.heal()
    raise AssertionError("the primary never died in the middle of a record")


def load(cluster: Cluster) -> None:
    with contextlib.suppress(psycopg.OperationalError), cluster.primary.connect() as connection:
        while True:
            connection.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', 40000000))")


def received(replica: Replica) -> int:
    return parse_lsn(replica.ask("SELECT coalesce(pg_last_wal_receive_lsn(), '0/0')::text"))


def has_stopped(replica: Replica) -> bool:
    before = replica.replay_lsn
    return not replica.ask("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)") and replica.replay_lsn == before


def wait_for_looks(checker: Checker, seconds: float) -> None:
    seen = host_of(checker, "replica1").sampled_at or 0
    wait_until(lambda: (host_of(checker, "replica1").sampled_at or 0) > seen + seconds, timeout=30, what="some more looks")


def test_replicas_serve_when_the_primary_died_in_the_middle_of_a_record(healed_cluster: Cluster) -> None:
    """Those who knew the primary and those who never saw it: half a record is nothing to wait for."""
    with checking(targets_of(healed_cluster), max_lag_seconds=2) as checker:
        wait_until_online(checker)
        die_in_the_middle_of_a_record(healed_cluster)
        wait_for_states(checker, primary=HostState.OFFLINE)
        wait_for_looks(checker, 3)
        wait_for_states(checker, primary=HostState.OFFLINE, replica1=HostState.ONLINE, replica2=HostState.ONLINE)
        wait_for_looks(checker, 3)
        assert {host.alias for host in checker.topology(PRIMARY).online} == {"replica1", "replica2"}
    report = collect([(config_for(targets_of(healed_cluster)), targets_of(healed_cluster))])
    assert "online" in {host.state for host in report.clusters[0].hosts}
    with checking(targets_of(healed_cluster), max_lag_seconds=2) as checker:
        wait_until(lambda: bool(checker.topology(PRIMARY).online), timeout=20, what="a replica that is not behind the other")


def test_replica_that_returns_when_the_primary_is_gone_serves(healed_cluster: Cluster) -> None:
    """It never shows a position that this process has seen, since nobody will send it any more; and nobody is ahead of it."""
    replica = healed_cluster.replicas[0]
    replica.stop("fast")
    healed_cluster.primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
    with checking(targets_of(healed_cluster)[:2]) as checker:
        wait_for_states(checker, primary=HostState.ONLINE, replica1=HostState.OFFLINE)
        healed_cluster.primary.kill()
        replica.start()
        wait_for_states(checker, primary=HostState.OFFLINE, replica1=HostState.ONLINE)
        assert (host_of(checker, "replica1").replay_lsn or 0) < checker.topology(PRIMARY).samples[0].lsn


def test_promotion_shows(healed_cluster: Cluster) -> None:
    """Whether the primary lives or not."""
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        assert not host_of(checker, "replica1").is_promoted
        healed_cluster.replicas[0].promote()
        wait_until(lambda: host_of(checker, "replica1").is_promoted, timeout=20, what="the checker to see the promotion")
        assert not host_of(checker, "replica2").is_promoted
