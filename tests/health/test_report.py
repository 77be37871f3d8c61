"""One look at every host, and the report it makes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_pglb.health.collect import collect
from django_pglb.health.report import (
    ALL_WELL,
    COULD_NOT_TELL,
    FEEDBACK,
    NO_RECEIVER,
    NO_STATS,
    NONE_USABLE,
    PAUSED,
    SOME_UNUSABLE,
    SYNCHRONOUS,
    HostReport,
    Report,
)
from django_pglb.health.table import format_table
from django_pglb.health.target import Target
from django_pglb.testing import Cluster, wait_until

from .aids import PRIMARY, config_for, deaf_port, hanging_resolver, target_at, target_of, targets_of


def report_on(targets: list[Target], **changes: Any) -> Report:
    return collect([(config_for(targets, **changes), targets)])


def host_in(report: Report, alias: str) -> HostReport:
    return next(host for cluster in report.clusters for host in cluster.hosts if host.alias == alias)


def write(cluster: Cluster) -> None:
    # Committed, hence flushed at once.
    cluster.primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")


def test_all_well(healed_cluster: Cluster) -> None:
    """Status 0, and every column of a healthy replica is filled."""
    write(healed_cluster)
    healed_cluster.wait_until_replicas_caught_up()
    reports: list[Report] = []

    def is_caught_up() -> bool:
        # Now and then the server writes something by itself that it takes its time to flush, and hence to send.
        reports.append(report_on(targets_of(healed_cluster)))
        return host_in(reports[-1], "replica1").why == "caught up"

    wait_until(is_caught_up, timeout=30, what="a report in which the replica has caught up")
    report = reports[-1]
    host = host_in(report, "replica1")
    assert (report.status, host.role, host.state) == (ALL_WELL, "replica", "online")
    assert (host.lag_bytes, host.lag_seconds, host.timeline) == (0, 0.0, 1)
    assert host.address == f"127.0.0.1:{healed_cluster.replicas[0].port}"
    assert host.server_version is not None
    assert host.position is not None
    assert host_in(report, PRIMARY).role == "primary"


def test_dead_replica_is_a_warning(healed_cluster: Cluster) -> None:
    """Status 1 while another replica is usable."""
    healed_cluster.replicas[0].stop("immediate")
    report = report_on(targets_of(healed_cluster))
    assert (report.status, host_in(report, "replica1").state) == (SOME_UNUSABLE, "offline")
    assert "connection refused" in host_in(report, "replica1").why


def test_no_usable_replica_is_critical(healed_cluster: Cluster) -> None:
    """Status 2 when the only replica is dead."""
    healed_cluster.replicas[0].stop("immediate")
    assert report_on(targets_of(healed_cluster)[:2]).status == NONE_USABLE


def test_dead_primary_is_critical_and_replicas_are_still_judged(healed_cluster: Cluster) -> None:
    """Status 2, although the replicas could be read from."""
    healed_cluster.primary.stop("immediate")
    report = report_on(targets_of(healed_cluster))
    assert (report.status, host_in(report, PRIMARY).state, host_in(report, "replica1").state) == (NONE_USABLE, "offline", "online")


def test_standby_as_primary_is_critical(healed_cluster: Cluster) -> None:
    """An alias for writes that points at a standby is no primary."""
    replica = healed_cluster.replicas[0]
    report = report_on([target_at(PRIMARY, replica.host, replica.port, dbname="postgres", user="plain")])
    assert (report.status, "standby" in host_in(report, PRIMARY).why) == (NONE_USABLE, True)


def test_development_without_replicas_is_well(healed_cluster: Cluster) -> None:
    """With no replica configured none is missing."""
    assert report_on([target_of(healed_cluster.primary)]).status == ALL_WELL


def test_lagging_counts_as_unusable(healed_cluster: Cluster) -> None:
    """The lag in seconds is by commit times, the paused replay is named, and without a threshold it is no trouble."""
    write(healed_cluster)
    healed_cluster.wait_until_replicas_caught_up()
    replica = healed_cluster.replicas[0]
    replica.pause_replay()
    reports: list[Report] = []

    def is_late_alone() -> bool:
        # On a busy machine the other one may be late as well by the time that it is asked.
        write(healed_cluster)
        healed_cluster.replicas[1].wait_until_caught_up()
        reports.append(report_on(targets_of(healed_cluster), max_lag_seconds=0.2))
        return reports[-1].status == SOME_UNUSABLE

    wait_until(is_late_alone, timeout=30, what="a report in which one replica alone is late")
    report = reports[-1]
    host = host_in(report, "replica1")
    assert (host.state, host_in(report, "replica2").state) == ("lagging", "online")
    assert (host.lag_seconds or 0) > 0.2
    assert (host.lag_bytes or 0) > 0
    assert PAUSED in host.advice
    assert host_in(report_on(targets_of(healed_cluster), max_lag_seconds=None), "replica1").state == "online"


def test_promoted_replica_is_diverged(healed_cluster: Cluster) -> None:
    """One look suffices: the primary is asked again after the replica has answered."""
    healed_cluster.replicas[0].promote()
    assert host_in(report_on(targets_of(healed_cluster)), "replica1").state == "diverged"


def test_advice(healed_cluster: Cluster) -> None:
    """What is off, missing or not granted is said, to replicas only, until it is mended."""
    report = report_on(targets_of(healed_cluster))
    assert set(host_in(report, "replica1").advice) == {FEEDBACK, NO_STATS}
    assert host_in(report, PRIMARY).advice == ()
    healed_cluster.create_role("monitor", monitor=True)
    healed_cluster.replicas[0].alter_system("hot_standby_feedback", "on")
    healed_cluster.wait_until_replicas_caught_up()
    assert host_in(report_on(targets_of(healed_cluster, user="monitor")), "replica1").advice == ()
    healed_cluster.primary.stop("immediate")
    # The receiver needs a moment to notice.
    wait_until(
        lambda: NO_RECEIVER in host_in(report_on(targets_of(healed_cluster)), "replica1").advice, timeout=20, what="advice on the receiver"
    )


def test_synchronous_standbys_and_monotonic_reads_are_advised_about(healed_cluster: Cluster) -> None:
    """At the primary, which alone shows a commit late; no trouble in another mode, or without such standbys."""
    healed_cluster.primary.alter_system("synchronous_standby_names", "ANY 1 (*)")
    report = report_on(targets_of(healed_cluster), consistency="monotonic")
    assert (report.status, host_in(report, PRIMARY).advice) == (ALL_WELL, (SYNCHRONOUS,))
    assert SYNCHRONOUS not in host_in(report, "replica1").advice
    assert host_in(report_on(targets_of(healed_cluster)), PRIMARY).advice == ()
    healed_cluster.primary.alter_system("synchronous_standby_names", "")
    assert host_in(report_on(targets_of(healed_cluster), consistency="monotonic"), PRIMARY).advice == ()


def test_worst_cluster_decides(healed_cluster: Cluster) -> None:
    """One well, one critical: critical; none at all: could not tell."""
    well = targets_of(healed_cluster)
    with deaf_port() as port:
        bad = [target_at("primary_too", "127.0.0.1", port)]
        report = collect([(config_for(well), well), (config_for(bad, check_timeout=0.2), bad)])
    assert [cluster.status for cluster in report.clusters] == [ALL_WELL, NONE_USABLE]
    assert report.status == NONE_USABLE
    assert Report(clusters=()).status == COULD_NOT_TELL


def test_mirrors_are_online_and_not_probed(healed_cluster: Cluster) -> None:
    """A test mirror needs no server."""
    mirror = target_at("mirror", "nowhere.invalid", 1, is_mirror=True)
    assert host_in(report_on([target_of(healed_cluster.primary), mirror]), "mirror").state == "online"


def test_answers_in_time_when_every_host_hangs() -> None:
    """Two clusters of twenty replicas, deaf or unresolvable: hardly longer than the timeout, and everything is offline."""
    with deaf_port() as port, hanging_resolver() as resolve:
        clusters = []
        for primary in (PRIMARY, "primary_too"):
            hosts = [target_at(primary, "127.0.0.1", port)]
            hosts += [target_at(f"{primary}_deaf{number}", "127.0.0.1", port) for number in range(10)]
            hosts += [target_at(f"{primary}_lost{number}", f"hang{number}.invalid", 5432) for number in range(10)]
            clusters.append((config_for(hosts, check_timeout=1.0), [*hosts]))
        started_at = time.monotonic()
        report = collect(clusters, resolve=resolve)
        assert time.monotonic() - started_at < 2
    assert {host.state for cluster in report.clusters for host in cluster.hosts} == {"offline"}
    assert report.status == NONE_USABLE


@pytest.mark.parametrize("stopped", [False, True])
def test_table_is_aligned(healed_cluster: Cluster, stopped: bool) -> None:
    """Every column begins, or for numbers ends, where its heading does."""
    if stopped:
        healed_cluster.replicas[0].stop("immediate")
    title, headings, *rows = format_table(report_on(targets_of(healed_cluster))).splitlines()
    assert title == "Cluster primary (maximum lag: 20 s)"
    for row in rows[:3]:
        for heading in ("ROLE", "STATE", "ADDRESS", "WHY"):
            start = headings.index(heading)
            assert row[start - 1] == " "
            assert row[start] != " "
        for heading in ("LAG BYTES", "TIMELINE"):
            assert row[headings.index(heading) + len(heading) - 1] != " "


def test_tables_that_the_role_of_a_replica_may_not_read_are_counted(healed_cluster: Cluster) -> None:
    """Only those that the primary's role may read; with what to run. Who reads with the primary's role is told nothing."""
    for role in ("owner_of_all", "reader_of_few"):
        healed_cluster.create_role(role)
    with healed_cluster.primary.connect() as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (); CREATE TABLE shop.items (); CREATE TABLE shop.secrets ()")
        connection.execute("GRANT USAGE ON SCHEMA shop TO owner_of_all, reader_of_few")
        connection.execute("GRANT SELECT ON shop.orders, shop.items TO owner_of_all; GRANT SELECT ON shop.items TO reader_of_few")
    healed_cluster.wait_until_replicas_caught_up()
    try:
        owner, reader = (targets_of(healed_cluster, user=role) for role in ("owner_of_all", "reader_of_few"))
        report = report_on([owner[0], reader[1], owner[2]])
        (advice,) = [text for text in host_in(report, "replica1").advice if "may not read" in text]
        assert "reader_of_few may not read 1 of the tables" in advice
        assert "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA shop GRANT SELECT ON TABLES TO reader_of_few" in advice
        assert not [text for text in host_in(report, "replica2").advice if "may not read" in text]
    finally:
        with healed_cluster.primary.connect() as connection:
            connection.execute("DROP SCHEMA shop CASCADE")
