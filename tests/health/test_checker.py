"""The checker on a real cluster."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import threading
import time
from typing import Any

import pytest

from django_pglb.core.config import ClusterConfig
from django_pglb.core.topology import Host, HostState, Topology
from django_pglb.health.checker import Checker
from django_pglb.health.clock import now
from django_pglb.health.probe import Link
from django_pglb.health.target import APPLICATION_NAME
from django_pglb.health.worker import HostWatch, Worker
from django_pglb.testing import PLAIN_ROLE, Cluster, PostgresHost, wait_until

from .aids import (
    PRIMARY,
    checking,
    config_for,
    deaf_port,
    forget_log,
    hanging_resolver,
    host_of,
    lines_about,
    target_at,
    target_of,
    targets_of,
    wait_for_states,
    wait_until_online,
    watch_log,
)

PIDS = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name = %s"


def checker_pids(host: PostgresHost) -> list[int]:
    """Return the server processes that serve checkers, as the server sees it."""
    return host.ask(PIDS, (APPLICATION_NAME,)) or []


def wait_until_alone(cluster: Cluster) -> None:
    """Wait until the connections of earlier checkers have ended on every host, and one is left."""
    for host in cluster.hosts:
        wait_until(lambda host=host: len(checker_pids(host)) == 1, timeout=20, what=f"one checker's connection on {host.name}")


def test_replicas_come_online(healed_cluster: Cluster) -> None:
    """A role without any grant is enough, and everything that a topology shows is there."""
    with checking(targets_of(healed_cluster)) as checker:
        assert checker.wait_until_known(30)
        wait_until_online(checker)

        def has_caught_up() -> bool:
            topology = checker.topology(PRIMARY)
            replica = topology.by_alias["replica1"]
            shown = (replica.lag_seconds, replica.lag_bytes, replica.timeline)
            return shown == (0, 0, 1) and replica.replay_lsn == topology.samples[-1].lsn

        wait_until(has_caught_up, timeout=20, what="a topology in which the replica has the last sample")


def test_nothing_happens_before_it_is_asked_to_run(healed_cluster: Cluster) -> None:
    """A checker that was only made knows nothing and opens no connection."""
    targets = targets_of(healed_cluster)
    wait_until(lambda: not checker_pids(healed_cluster.primary), timeout=20, what="connections of earlier checkers to end")
    checker = Checker({PRIMARY: targets}, {PRIMARY: config_for(targets)})
    assert checker.topology(PRIMARY).online == ()
    assert "django-pglb-checker" not in {thread.name for thread in threading.enumerate()}
    assert checker_pids(healed_cluster.primary) == []


def test_one_thread_and_one_connection_for_each_host(healed_cluster: Cluster) -> None:
    """However often it is asked to run, and for however long."""
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        wait_until_alone(healed_cluster)
        before = [checker_pids(host) for host in healed_cluster.hosts]
        seen = host_of(checker, "replica1").sampled_at
        for _ in range(100):
            checker.ensure_running()
        wait_until(lambda: (host_of(checker, "replica1").sampled_at or 0) > (seen or 0) + 0.3, timeout=20, what="more probes")
        assert [len(pids) for pids in before] == [1, 1, 1]
        assert [checker_pids(host) for host in healed_cluster.hosts] == before
        assert [thread.name for thread in threading.enumerate()].count("django-pglb-checker") == 1


def test_dead_replica_leaves_and_returns_with_a_line_each(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """One warning when it leaves, one note when it returns: address, reason, lag and threshold."""
    watch_log(caplog)
    replica = healed_cluster.replicas[0]
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        forget_log(caplog, checker)
        replica.kill()
        wait_for_states(checker, replica1=HostState.OFFLINE, replica2=HostState.ONLINE)
        replica.start()
        wait_until_online(checker)
    # On a busy machine a look may find it just before it has replayed what the primary has.
    left, *between, returned = lines_about(caplog, "replica1")
    assert left.startswith(f"WARNING replica1 (127.0.0.1:{replica.port}) is offline, was online: ")
    assert left.endswith("; lag 0.0 s, MAX_LAG_SECONDS 20")
    assert [line.partition(" is ")[2].partition(",")[0] for line in (*between, returned)] in (["online"], ["unknown", "online"])
    assert returned.startswith(f"WARNING replica1 (127.0.0.1:{replica.port}) is online, was {'unknown' if between else 'offline'}: ")
    assert lines_about(caplog, "replica2") == []


def test_frozen_replica_is_out_after_the_timeout_and_holds_up_nobody(healed_cluster: Cluster) -> None:
    """The others are looked at all the while."""
    with checking(targets_of(healed_cluster), check_timeout=3) as checker:
        wait_until_online(checker)
        healed_cluster.replicas[0].freeze()

        def is_left_behind() -> bool:
            frozen, other = (checker.topology(PRIMARY).by_alias[alias] for alias in ("replica1", "replica2"))
            return frozen.is_online and (other.sampled_at or 0) > (frozen.sampled_at or 0) + 1

        wait_until(is_left_behind, timeout=20, what="looks at the others while the frozen one is waited for")
        wait_for_states(checker, replica1=HostState.OFFLINE)
        assert host_of(checker, "replica1").why == "no answer within 3 s"
        healed_cluster.replicas[0].thaw()
        wait_until_online(checker)


def test_reported_failure_takes_the_host_out_at_once(
    healed_cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next reader sees it; a look that starts afterwards brings it back, long before one is due."""
    watch_log(caplog)
    monkeypatch.setattr("django_pglb.health.worker.HURRY_SECONDS", 1.0)
    # Committed, hence flushed: a replica could not have replayed what its primary has only begun to write.
    healed_cluster.primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
    healed_cluster.wait_until_replicas_caught_up()
    with checking(targets_of(healed_cluster), check_interval=40) as checker:
        checker.wait_until_known(30)
        wait_for_states(checker, timeout=90, replica1=HostState.ONLINE, replica2=HostState.ONLINE)
        checker.report_failure("replica1", "a request failed")
        host = host_of(checker, "replica1")
        assert (host.state, host.why) == (HostState.OFFLINE, "a request failed")
        assert [online.alias for online in checker.topology(PRIMARY).online] == ["replica2"]
        wait_for_states(checker, timeout=20, replica1=HostState.ONLINE)
        wait_until(lambda: len(lines_about(caplog, "replica1")) >= 3, timeout=20, what="both changes to be logged")


def test_host_that_looks_well_and_fails_every_read_is_not_looked_at_without_end(healed_cluster: Cluster) -> None:
    """A look in a hurry takes the place of the next, and each waits twice as long as the one before."""
    looks: list[float] = []

    def listen(primary: str, topology: Topology) -> None:
        looks.append(topology.by_alias["replica1"].sampled_at or 0)

    with checking(targets_of(healed_cluster), check_interval=1, on_change=listen) as checker:
        wait_until_online(checker)
        looks.clear()
        until = time.monotonic() + 4
        while time.monotonic() < until:
            if host_of(checker, "replica1").is_online:
                checker.report_failure("replica1", "a request failed")
            time.sleep(0.01)
    # Four planned ones, and those in a hurry after 0.1, 0.2, 0.4 and 0.8 s.
    assert 1 < len(set(looks)) <= 12


def test_closed_checker_is_not_started_by_whoever_still_has_it(healed_cluster: Cluster) -> None:
    """Settings were changed while another thread was reading."""
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        checker.close()
        checker.ensure_running()
        assert "django-pglb-checker" not in {thread.name for thread in threading.enumerate()}


def test_checker_that_is_closed_while_it_starts_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings were changed while another thread, the first to read, was just starting it."""
    others = set(threading.enumerate())
    closing: list[threading.Thread] = []

    def start_while_it_is_closed(*arguments: Any, **options: Any) -> Worker:
        closing.append(threading.Thread(target=checker.close))
        closing[0].start()
        closing[0].join(0.5)  # unless it waits for us
        return Worker(*arguments, **options)

    monkeypatch.setattr("django_pglb.health.checker.Worker", start_while_it_is_closed)
    with deaf_port() as port:
        targets = [target_at(alias, "127.0.0.1", port) for alias in (PRIMARY, "replica1")]
        checker = Checker({PRIMARY: targets}, {PRIMARY: config_for(targets)})
        checker.ensure_running()
        closing[0].join()
        try:
            wait_until(
                lambda: "django-pglb-checker" not in {thread.name for thread in set(threading.enumerate()) - others},
                timeout=20,
                what="the thread to end",
            )
        finally:
            checker.stop()


def test_reads_go_on_when_the_checker_cannot_be_started(
    healed_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process without a free descriptor has one complaint in its log; when there is one again, the checker starts."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    targets = targets_of(healed_cluster)
    checker = Checker({PRIMARY: targets}, {PRIMARY: config_for(targets)})
    with monkeypatch.context() as patch:
        patch.setattr("django_pglb.health.checker.Worker", refuse)
        for _ in range(3):
            checker.ensure_running()
    try:
        assert checker.topology(PRIMARY).online == ()
        assert caplog.text.count("The checker cannot be started") == 1
        checker.ensure_running()
        wait_until_online(checker)
    finally:
        checker.stop()


def test_failure_of_an_unknown_alias_is_ignored(healed_cluster: Cluster) -> None:
    """An alias of no cluster cannot leave one."""
    with checking(targets_of(healed_cluster)) as checker:
        checker.report_failure("elsewhere", "a request failed")
        assert {host.state for host in checker.topology(PRIMARY).by_alias.values()} <= {HostState.UNKNOWN, HostState.ONLINE}


def test_paused_replica_lags_and_recovers(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """It leaves when what it has not replayed is older than the threshold, and the line says by how much."""
    watch_log(caplog)
    with checking(targets_of(healed_cluster), max_lag_seconds=0.5) as checker:
        wait_until_online(checker)
        healed_cluster.replicas[0].pause_replay()
        healed_cluster.primary.ask("SELECT pg_logical_emit_message(false, 'test', repeat('x', 100))")
        wait_for_states(checker, replica1=HostState.LAGGING, replica2=HostState.ONLINE)
        assert (host_of(checker, "replica1").lag_seconds or 0) > 0.5
        assert (host_of(checker, "replica1").lag_bytes or 0) > 100
        healed_cluster.replicas[0].resume_replay()
        wait_until_online(checker)
    assert any("more than MAX_LAG_SECONDS (0.5)" in line for line in lines_about(caplog, "replica1"))


def test_replica_that_hovers_about_the_limit_leaves_once(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """It is always about as far behind as it may be: one line says that it left, and one that it is back when it is well below."""
    watch_log(caplog)
    with checking(targets_of(healed_cluster)[:2], max_lag_seconds=1.0) as checker:
        wait_until_online(checker)
        forget_log(caplog, checker)
        healed_cluster.replicas[0].delay_replay(1.05)
        looks: set[float | None] = set()

        def is_seen_often() -> bool:
            healed_cluster.primary.ask("SELECT pg_current_xact_id()::text")  # something to commit, again and again
            host = host_of(checker, "replica1")
            if host.state is HostState.LAGGING or looks:
                looks.add(host.sampled_at)
            return len(looks) > 30

        wait_until(is_seen_often, timeout=60, what="thirty looks at a replica that lags")
        healed_cluster.replicas[0].delay_replay(0)
        wait_until_online(checker)
        wait_until(
            lambda: any("is online" in line for line in lines_about(caplog, "replica1")), timeout=20, what="the line that it is back"
        )
    assert [line.split(", was", maxsplit=1)[0] for line in lines_about(caplog, "replica1")] == [
        f"WARNING replica1 ({healed_cluster.replicas[0].host}:{healed_cluster.replicas[0].port}) is {state}"
        for state in ("lagging", "online")
    ]


def test_late_replica_is_not_taken_for_caught_up_because_it_answered_first(healed_cluster: Cluster) -> None:
    """Its answer comes before the primary's of the same round, and its delay is guessed from the primary's answers around it."""
    for replica in healed_cluster.replicas:
        replica.delay_replay(0.5)

    def is_guessed() -> bool:
        healed_cluster.primary.ask("SELECT pg_current_xact_id()::text")  # something to commit, again and again
        topology = checker.topology(PRIMARY)
        return any((host.delay_seconds or 0) > 0 and answered_before_sample(topology, host) for host in topology.replicas)

    with checking(targets_of(healed_cluster), check_interval=1.0) as checker:
        wait_until(is_guessed, timeout=60, what="the delay of a replica that answered before the primary")


def answered_before_sample(topology: Topology, host: Host) -> bool:
    """Say whether `host` answered before the first position that it had not replayed was sampled."""
    first = next((sample for sample in topology.samples if sample.lsn > (host.replay_lsn or 0)), None)
    return first is not None and host.sampled_at is not None and host.sampled_at < first.at


def test_switched_segment_makes_no_lag_on_an_idle_primary(healed_cluster: Cluster) -> None:
    """The raw insert position after a switch is one that no replica reaches until somebody writes again."""
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        healed_cluster.primary.ask("SELECT pg_switch_wal()")
        switched = healed_cluster.primary.write_lsn
        wait_until(lambda: checker.topology(PRIMARY).samples[-1].lsn >= switched, timeout=20, what="a sample after the switch")
        wait_until(lambda: host_of(checker, "replica1").lag_bytes == 0, timeout=10, what="the replica to be seen caught up")


def test_promoted_replica_is_diverged_while_the_primary_answers(healed_cluster: Cluster) -> None:
    """It takes writes of its own, and stays out when the primary falls silent afterwards."""
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        healed_cluster.replicas[0].promote()
        wait_for_states(checker, replica1=HostState.DIVERGED, replica2=HostState.ONLINE)
        healed_cluster.primary.stop("immediate")
        wait_for_states(checker, primary=HostState.OFFLINE)
        seen = host_of(checker, "replica1").sampled_at or 0
        wait_until(lambda: (host_of(checker, "replica1").sampled_at or 0) > seen + 0.3, timeout=20, what="some more looks")
        assert host_of(checker, "replica1").state is HostState.DIVERGED
        assert host_of(checker, "replica2").state is HostState.ONLINE


def test_failover_with_pg_read_all_stats_is_followed_at_once(healed_cluster: Cluster) -> None:
    """The other replica streams from the promoted one; with the grant its timeline is seen, and it comes online."""
    healed_cluster.create_role("monitor", monitor=True)
    promoted, follower = healed_cluster.replicas
    healed_cluster.primary.stop("fast")
    promoted.promote()
    follower.follow(promoted)
    targets = [
        target_at(PRIMARY, promoted.host, promoted.port, dbname="postgres", user="monitor"),
        target_of(follower, user="monitor"),
    ]
    with checking(targets) as checker:
        wait_until_online(checker)
        assert host_of(checker, "replica2").timeline == 2


def test_replica_of_another_primary_is_diverged(healed_cluster: Cluster) -> None:
    """A server that belongs to another cluster is never used."""
    with Cluster(replicas=0, redis=False) as other:
        targets = [target_of(other.primary), target_of(healed_cluster.replicas[0])]
        with checking(targets) as checker:
            wait_for_states(checker, replica1=HostState.DIVERGED)


def test_replicas_serve_without_a_primary_from_the_start(healed_cluster: Cluster) -> None:
    """They have replayed all they received."""
    healed_cluster.primary.stop("immediate")
    with checking(targets_of(healed_cluster)) as checker:
        wait_for_states(checker, primary=HostState.OFFLINE, replica1=HostState.ONLINE, replica2=HostState.ONLINE)


def test_broken_connection_alone_takes_nobody_out(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Servers and firewalls end idle connections; a new one is tried before anything is concluded."""
    watch_log(caplog)
    replica = healed_cluster.replicas[0]
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        wait_until_alone(healed_cluster)
        forget_log(caplog, checker)
        (pid,) = checker_pids(replica)
        replica.ask("SELECT pg_terminate_backend(%s)", (pid,))
        wait_until(lambda: len(checker_pids(replica)) == 1 and checker_pids(replica) != [pid], timeout=20, what="a new connection")
        wait_until_online(checker)
    assert lines_about(caplog, "replica1") == []


def test_hanging_name_holds_up_nobody(healed_cluster: Cluster) -> None:
    """A name whose resolution hangs is offline after the timeout, the others are online, and one thread waits for it."""
    targets = [*targets_of(healed_cluster), target_at("hanging", "hang.invalid", 5432)]
    others = set(threading.enumerate())
    with hanging_resolver() as resolve, checking(targets, resolve=resolve, check_timeout=1) as checker:
        wait_for_states(checker, hanging=HostState.OFFLINE, replica1=HostState.ONLINE, replica2=HostState.ONLINE)
        first_seen = host_of(checker, "replica1").sampled_at or 0
        wait_until(lambda: (host_of(checker, "replica1").sampled_at or 0) > first_seen + 2.5, timeout=30, what="more probes")
        resolvers = [thread for thread in set(threading.enumerate()) - others if thread.name == "django-pglb-resolver"]
        assert len(resolvers) == 1


def test_stop_does_not_wait_for_hosts_that_hang(healed_cluster: Cluster) -> None:
    """Deaf, unresolvable or frozen in the middle of a look: it ends at once, and can be started again."""
    with deaf_port() as port, hanging_resolver() as resolve:
        targets = [*targets_of(healed_cluster), target_at("hanging", "hang.invalid", 5432), target_at("deaf", "127.0.0.1", port)]
        with checking(targets, resolve=resolve, check_timeout=60) as checker:
            wait_until(lambda: host_of(checker, "replica2").is_online, timeout=30, what="replica2 to be online")
            healed_cluster.replicas[0].freeze()
            time.sleep(0.3)  # a look at it is under way
            checker.stop()
            names = lambda: {thread.name for thread in threading.enumerate()}  # noqa: E731
            wait_until(lambda: "django-pglb-checker" not in names(), timeout=20, what="the thread to end, long before its looks would")
            healed_cluster.replicas[0].thaw()
            checker.ensure_running()
            wait_for_states(checker, replica1=HostState.ONLINE)


def test_mirrors_are_online_and_never_probed(healed_cluster: Cluster) -> None:
    """With mirrors only, nothing is connected to at all."""
    targets = [target_of(healed_cluster.primary), target_of(healed_cluster.replicas[0], is_mirror=True)]
    with checking(targets) as checker:
        assert host_of(checker, "replica1").is_online
        assert checker.wait_until_known(0.1)
        assert not [thread for thread in threading.enumerate() if thread.name == "django-pglb-checker"]


def test_listener_hears_changes_and_may_fail(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """It is called in a thread of its own with the new topology; what it raises is logged and harms nobody."""
    heard: list[tuple[str, str, Topology]] = []

    def listen(primary: str, topology: Topology) -> None:
        heard.append((threading.current_thread().name, primary, topology))
        raise ValueError("a listener's own trouble")

    with checking(targets_of(healed_cluster), on_change=listen) as checker:
        wait_until_online(checker)
        wait_until(lambda: len(heard) >= 3, timeout=20, what="three changes")
        assert {(thread, primary) for thread, primary, _ in heard} == {("django-pglb-teller", PRIMARY)}
        checker.report_failure("replica1", "a request failed")
        wait_until_online(checker)
    assert "a listener's own trouble" in caplog.text


def test_several_clusters_share_one_thread(healed_cluster: Cluster) -> None:
    """Each has its own topology."""
    first, second = targets_of(healed_cluster)[:2], targets_of(healed_cluster)[:1] + targets_of(healed_cluster)[2:]
    renamed = [
        target_at("primary_too", healed_cluster.primary.host, healed_cluster.primary.port, dbname="postgres", user=PLAIN_ROLE),
        second[1],
    ]
    configs: dict[str, ClusterConfig] = {PRIMARY: config_for(first), "primary_too": config_for(renamed)}
    checker = Checker({PRIMARY: first, "primary_too": renamed}, configs)
    try:
        assert checker.wait_until_known(30)
        wait_until(lambda: bool(checker.topology("primary_too").online), timeout=20, what="the second cluster")
        assert [host.alias for host in checker.topology("primary_too").online] == ["replica2"]
        assert [thread.name for thread in threading.enumerate()].count("django-pglb-checker") == 1
    finally:
        checker.stop()


def test_forked_child_knows_nothing_and_looks_for_itself(healed_cluster: Cluster) -> None:
    """The server sees a second checker, and the parent's connection outlives the child."""
    replica = healed_cluster.replicas[0]
    with checking(targets_of(healed_cluster)) as checker:
        wait_until_online(checker)
        wait_until_alone(healed_cluster)
        (parents,) = checker_pids(replica)
        told, tell = os.pipe()
        may_end, end = os.pipe()
        child = os.fork()
        if not child:
            os.close(end)
            _live_as_child(checker, tell, may_end)
        try:
            assert os.read(told, len("unknown")) == b"unknown"
            assert os.read(told, len("online")) == b"online"
            assert len(checker_pids(replica)) == 2
            os.write(end, b"x")
            assert os.waitpid(child, 0)[1] == 0
        finally:
            for descriptor in (told, tell, may_end, end):
                os.close(descriptor)
        seen = host_of(checker, "replica1").sampled_at or 0
        wait_until(lambda: (host_of(checker, "replica1").sampled_at or 0) > seen + 0.3, timeout=20, what="the parent's further probes")
        wait_until(lambda: checker_pids(replica) == [parents], timeout=20, what="the child's connection to end, and only that")


def _live_as_child(checker: Checker, tell: int, may_end: int) -> None:
    """Never returns: what follows in the test is the parent's."""
    signal.alarm(120)
    status = 1
    try:
        states = {host.state for host in checker.topology(PRIMARY).by_alias.values()}
        os.write(tell, b"unknown" if states == {HostState.UNKNOWN} else b"known")
        checker.ensure_running()
        wait_until_online(checker)
        os.write(tell, b"online")
        os.read(may_end, 1)
        checker.stop()
        status = 0
    finally:
        os._exit(status)


def test_stopping_at_any_moment_leaves_nothing_behind(healed_cluster: Cluster) -> None:
    """Before the first look, while connecting, or later: no connection stays, and no warning is given."""
    targets = targets_of(healed_cluster)
    for milliseconds in range(0, 40, 2):
        with checking(targets):
            time.sleep(milliseconds / 1000)
    gc.collect()
    wait_until(lambda: not checker_pids(healed_cluster.replicas[0]), timeout=20, what="the last connection to end")


def test_look_that_has_not_begun_when_all_is_over_never_begins() -> None:
    """Nobody would end it."""

    async def leave_at_once(port: int) -> int:
        watch = HostWatch(Link(target_at("deaf", "127.0.0.1", port), 5, now), lambda *_: None)
        watch.look()
        watch.leave()
        for _ in range(3):
            await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    with deaf_port() as port:
        assert asyncio.run(leave_at_once(port)) == 1
