"""Replicas that have what their primary never wrote, and how they come back."""

from __future__ import annotations

from django_pglb.core.topology import HostState
from django_pglb.health.target import target_from_params
from django_pglb.testing import PLAIN_ROLE, Cluster, wait_until

from .aids import PRIMARY, checking, host_of, slow_path, target_at, target_of, targets_of, wait_for_states, wait_until_online

WRITE = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 10000))"


def test_replica_left_behind_by_a_failover_is_out_until_it_is_rebuilt(healed_cluster: Cluster) -> None:
    """By a role without any grant, for processes that go on: ahead of the new primary, overtaken by it, restarted, and made anew."""
    primary, (behind, left) = healed_cluster.primary, healed_cluster.replicas
    hosts = {"host": f"{primary.host},{behind.host}", "port": f"{primary.port},{behind.port}", "target_session_attrs": "read-write"}
    either = target_from_params(PRIMARY, {**hosts, "dbname": "postgres", "user": PLAIN_ROLE}, is_primary=True)
    with checking([either, target_of(left)]) as checker:
        wait_until_online(checker)
        behind.stop("fast")
        primary.ask(WRITE)
        left.wait_until_caught_up()
        primary.kill()
        wait_for_states(checker, primary=HostState.OFFLINE)
        behind.start()
        behind.promote()
        wait_for_states(checker, primary=HostState.ONLINE, replica2=HostState.DIVERGED)
        seen: set[HostState] = set()

        def is_overtaken() -> bool:
            behind.ask(WRITE)
            topology = checker.topology(PRIMARY)
            seen.add(topology.by_alias["replica2"].state)
            return topology.samples[-1].lsn > left.replay_lsn + 50000

        wait_until(is_overtaken, timeout=30, what="the new timeline to overtake the replica")
        left.restart()
        wait_for_states(checker, replica2=HostState.DIVERGED)
        assert HostState.ONLINE not in seen
        left.rebuild(behind)
        wait_until_online(checker)


def test_promoted_replica_is_used_once_the_old_primary_has_become_its_standby(healed_cluster: Cluster) -> None:
    """It was proved to have diverged, by a primary that takes no writes any more."""
    primary, promoted = healed_cluster.primary, healed_cluster.replicas[0]
    with checking(targets_of(healed_cluster)[:2]) as checker:
        wait_until_online(checker)
        promoted.promote()
        wait_for_states(checker, replica1=HostState.DIVERGED)
        # Another standby takes the old primary's place: for the checker it is the same address that has become one.
        standby = healed_cluster.replicas[1]
        standby.rebuild(promoted)
        primary.stop("fast")
        wait_for_states(checker, primary=HostState.OFFLINE)
        assert host_of(checker, "replica1").state is HostState.DIVERGED
        with slow_path(standby.port, own_port=primary.port):
            wait_for_states(checker, replica1=HostState.ONLINE)
            assert host_of(checker, PRIMARY).why == "is a standby (in recovery), not a primary"
            assert host_of(checker, "replica1").why == "promoted, and the primary has become a standby"


def test_two_aliases_of_one_primary(healed_cluster: Cluster) -> None:
    """The second is out, without a word that alarms."""
    primary = healed_cluster.primary
    twin = target_at("twin", primary.host, primary.port, dbname="postgres", user=PLAIN_ROLE)
    with checking([target_of(primary), twin, target_of(healed_cluster.replicas[0])]) as checker:
        wait_for_states(checker, primary=HostState.ONLINE, twin=HostState.OFFLINE, replica1=HostState.ONLINE)
        assert host_of(checker, "twin").why == "is the primary itself, and no replica of it"
