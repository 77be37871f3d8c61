"""A replica's alias that reaches another database on the right server: a copy from last year, or what a pooler calls by the same name."""

from __future__ import annotations

import pytest

from django_pglb.core.topology import HostState
from django_pglb.health.collect import collect
from django_pglb.testing import Cluster

from .aids import RenamingPath, checking, config_for, host_of, passing, target_of, wait_for_states, wait_until_online

# As long as "postgres", the name of the right one.
COPY = "shop2024"


@pytest.fixture
def copied(healed_cluster: Cluster) -> Cluster:
    """The cluster with a second database."""
    if not healed_cluster.primary.ask("SELECT count(*) FROM pg_database WHERE datname = %s", (COPY,)):
        healed_cluster.create_database(COPY)
    healed_cluster.wait_until_replicas_caught_up()
    return healed_cluster


def test_other_database_is_diverged_from_the_first_look_on(copied: Cluster) -> None:
    """It never was online, and the reason names both databases."""
    states: set[HostState] = set()
    primary, wrong, right = copied.hosts
    targets = [target_of(primary), target_of(wrong, database=COPY), target_of(right)]
    with checking(targets, on_change=lambda _, topology: states.add(topology.by_alias["replica1"].state)) as checker:
        wait_for_states(checker, replica1=HostState.DIVERGED, replica2=HostState.ONLINE)
        why = host_of(checker, "replica1").why
    assert (f"'{COPY}'" in why, "'postgres'" in why) == (True, True), why
    assert HostState.ONLINE not in states


def test_other_database_behind_a_pooler_is_diverged(copied: Cluster) -> None:
    """It has the same name in the settings; another number tells."""
    primary, wrong, _ = copied.hosts
    with passing(RenamingPath(wrong.port, "postgres", COPY)) as path:
        targets = [target_of(primary), target_of(wrong, port=path.port, pooled=True)]
        with checking(targets) as checker:
            wait_for_states(checker, replica1=HostState.DIVERGED)
            assert f"'{COPY}'" in host_of(checker, "replica1").why
        report = collect([(config_for(targets), targets)])
        assert (report.status, report.clusters[0].hosts[1].state) == (2, "diverged")
        assert f"'{COPY}'" in report.clusters[0].hosts[1].why


def test_pooler_that_calls_the_right_database_otherwise_is_used(copied: Cluster) -> None:
    """Names are no proof while the primary answers."""
    primary, replica, _ = copied.hosts
    with (
        passing(RenamingPath(replica.port, "whatever", "postgres")) as path,
        checking([target_of(primary), target_of(replica, port=path.port, database="whatever", pooled=True)]) as checker,
    ):
        wait_until_online(checker)


def test_other_database_is_not_used_before_the_primary_was_seen(copied: Cluster) -> None:
    """This process was started while the primary was down: by its name it is another one."""
    primary, wrong, right = copied.hosts
    primary.stop("immediate")
    targets = [target_of(primary), target_of(wrong, database=COPY), target_of(right)]
    with checking(targets) as checker:
        wait_for_states(checker, primary=HostState.OFFLINE, replica1=HostState.UNKNOWN, replica2=HostState.ONLINE)
        assert f"'{COPY}'" in host_of(checker, "replica1").why
        report = collect([(config_for(targets), targets)])
        assert [host.state for host in report.clusters[0].hosts] == ["offline", "unknown", "online"]
        primary.start()
        wait_for_states(checker, primary=HostState.ONLINE, replica1=HostState.DIVERGED, replica2=HostState.ONLINE)
