"""What is said of a whole cluster, and how looks are spread."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from django_pglb.core.topology import Host, HostState, Topology
from django_pglb.health.teller import Change, Teller
from django_pglb.health.worker import HURRY_JITTER, HURRY_SECONDS, jittered
from django_pglb.testing import Cluster, wait_until

from .aids import PRIMARY, checking, config_for, lines_about, target_at, targets_of, wait_for_states, wait_until_online, watch_log


def cluster_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return lines_about(caplog, "Cluster")


def test_losing_the_last_replica_and_getting_one_back_is_one_line_each(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens to single hosts in between; at the start nothing is said."""
    watch_log(caplog)
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        healed_cluster.replicas[0].kill()
        wait_for_states(checker, replica1=HostState.OFFLINE)
        healed_cluster.replicas[0].start()
        wait_until_online(checker)
        assert cluster_lines(caplog) == []
        for replica in healed_cluster.replicas:
            replica.kill()
        wait_for_states(checker, replica1=HostState.OFFLINE, replica2=HostState.OFFLINE)
        wait_until(lambda: cluster_lines(caplog) != [], timeout=20, what="the line that says so")
        healed_cluster.replicas[1].start()
        wait_for_states(checker, replica1=HostState.OFFLINE, replica2=HostState.ONLINE)
        healed_cluster.replicas[0].start()
        wait_until_online(checker)
    lost, back = cluster_lines(caplog)
    assert lost == "WARNING Cluster primary has no replica to read from: all its reads go to the primary, which is online."
    assert back == "WARNING Cluster primary has replicas to read from again: replica2."


def test_cluster_whose_replicas_are_dead_from_the_start_is_said_once(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """When all have been looked at."""
    for replica in healed_cluster.replicas:
        replica.kill()
    with checking(targets_of(healed_cluster)) as checker:
        wait_for_states(checker, replica1=HostState.OFFLINE, replica2=HostState.OFFLINE)
        wait_until(lambda: cluster_lines(caplog) != [], timeout=20, what="the line that says so")
    assert len(cluster_lines(caplog)) == 1


def test_primary_is_behind_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its line tells no lag and no limit, a replica's tells both."""
    watch_log(caplog)
    targets = [target_at("primary", "127.0.0.1", 1), target_at("replica1", "127.0.0.1", 2)]
    teller = Teller({"primary": config_for(targets)}, {"primary": "h:1", "replica1": "h:2"}, None)
    hosts = [target.unknown() for target in targets]
    topology = Topology(primary=hosts[0], replicas=(hosts[1],))
    for host in hosts:
        teller.tell(Change("primary", host, replace(host, state=HostState.ONLINE, why="well", lag_seconds=0.0), topology))
    teller.ensure_running()
    teller.stop(60)
    assert lines_about(caplog, "primary") == ["INFO primary (h:1) is online, was unknown: well"]
    assert lines_about(caplog, "replica1") == ["INFO replica1 (h:2) is online, was unknown: well; lag 0.0 s, MAX_LAG_SECONDS 20"]


@pytest.mark.parametrize("consistency", ["monotonic", "read_your_writes"])
def test_synchronous_standbys_are_said_once_where_time_must_not_go_backwards(
    healed_cluster: Cluster, caplog: pytest.LogCaptureFixture, consistency: str
) -> None:
    """Seen by an ordinary look, also when they were named while the process ran, and once that they are no more."""
    watch_log(caplog)

    def names_are_seen(wanted: bool) -> bool:
        return checker.topology(PRIMARY).primary.waits_for_standbys is wanted

    with checking(targets_of(healed_cluster), consistency=consistency) as checker:
        wait_until_online(checker)
        for names in ("ANY 1 (*)", "FIRST 1 (*)", ""):
            healed_cluster.primary.alter_system("synchronous_standby_names", names)
            wait_until(partial(names_are_seen, bool(names)), timeout=20, what=f"the names to be {names!r}")
    told = [record.getMessage() for record in caplog.records if "synchronous" in record.getMessage()]
    expected = ["CONSISTENCY of cluster primary is ", "Commits of cluster primary wait for no "] if consistency == "monotonic" else []
    assert len(told) == len(expected)
    assert all(message.startswith(start) for message, start in zip(told, expected, strict=True)), told


def test_replica_that_was_said_to_have_left_is_said_to_be_back(caplog: pytest.LogCaptureFixture) -> None:
    """By a warning, as it left, also when it was unknown in between; to meet one for the first time is routine."""
    watch_log(caplog)
    targets = [target_at("primary", "127.0.0.1", 1), target_at("replica1", "127.0.0.1", 2)]
    teller = Teller({"primary": config_for(targets)}, {"primary": "h:1", "replica1": "h:2"}, None)
    states = [HostState.UNKNOWN, HostState.ONLINE, HostState.OFFLINE, HostState.UNKNOWN, HostState.ONLINE, HostState.UNKNOWN]
    for before, after in pairwise(states):
        host = Host(alias="replica1", state=after)
        topology = Topology(primary=Host(alias="primary"), replicas=(host,))
        teller.tell(Change("primary", Host(alias="replica1", state=before), host, topology))
    teller.ensure_running()
    teller.stop(timeout=60)
    assert [line.split()[0] for line in lines_about(caplog, "replica1")] == ["INFO", "WARNING", "WARNING", "WARNING", "WARNING"]


def test_processes_that_began_in_step_do_not_look_in_step() -> None:
    """After a minute their looks are spread over a good part of the interval; what requests hurry is spread at once."""
    begins = [sum(jittered(1.0) for _ in range(60)) for _ in range(200)]
    assert statistics.stdev(begins) > 0.3
    hurried = [jittered(HURRY_SECONDS, HURRY_JITTER) for _ in range(200)]
    assert statistics.stdev(hurried) > HURRY_SECONDS / 5
    assert 0 < min(hurried) < max(hurried) < 2 * HURRY_SECONDS
