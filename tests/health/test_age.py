"""Nobody believes what was seen too long ago."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from django_pglb.core.topology import HostState
from django_pglb.health.clock import now
from django_pglb.testing import PLAIN_ROLE, Cluster, wait_until

from .aids import (
    PRIMARY,
    checking,
    host_of,
    lines_about,
    slow_path,
    target_at,
    targets_of,
    wait_for_states,
    wait_until_online,
    watch_log,
)

ROOT = Path(__file__).parents[2]
BRISK = {"check_interval": 0.1, "check_timeout": 1.0}
TRUSTED_SECONDS = 3.3


def test_hosts_are_unknown_while_the_checker_hangs(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody's hook never returns: what was seen is believed for a while, then every host is unknown, and one line says so."""
    over = threading.Event()
    with checking(targets_of(healed_cluster), on_offline=lambda _: over.wait(), **BRISK) as checker:
        try:
            wait_until_online(checker)
            healed_cluster.replicas[1].kill()
            wait_for_states(checker, replica2=HostState.OFFLINE)
            assert host_of(checker, "replica1").is_online
            wait_for_states(checker, primary=HostState.UNKNOWN, replica1=HostState.UNKNOWN, replica2=HostState.UNKNOWN)
            assert host_of(checker, "replica1").why == "was not looked at for more than 3.3 s"
            assert checker.topology(PRIMARY).online == ()
        finally:
            over.set()
        wait_for_states(checker, replica1=HostState.ONLINE)
    assert caplog.text.count("No host of cluster primary was looked at for more than 3.3 s") == 1


def test_waiting_until_hosts_are_known_does_not_settle_for_what_was_seen_long_ago(healed_cluster: Cluster) -> None:
    """A checker that was stopped, and is needed again later, looks first."""
    jumps = 0.0
    with checking(targets_of(healed_cluster), clock=lambda: now() + jumps) as checker:
        wait_until_online(checker)
        checker.stop()
        jumps += 1000
        assert checker.topology(PRIMARY).online == ()
        assert checker.wait_until_known(30)
        assert checker.topology(PRIMARY).online != ()


def test_it_can_be_told_beforehand_until_when_a_topology_is_believed(healed_cluster: Cluster) -> None:
    """By whoever keeps one, and does not come back for each read."""
    moment: float | None = None
    with checking(targets_of(healed_cluster), clock=lambda: now() if moment is None else moment) as checker:
        wait_until_online(checker)
        checker.stop()
        topology = checker.topologies[PRIMARY]
        moment = checker.trusted_until(PRIMARY, topology) - 0.01
        assert checker.topology(PRIMARY) is topology
        moment += 0.02
        assert checker.topology(PRIMARY).online == ()


def test_slow_listener_and_slow_log_hold_up_no_look(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """They have a thread of their own, and are told in order when they come round."""
    watch_log(caplog)
    heard: list[HostState] = []
    over = threading.Event()

    def listen(_: str, topology: object) -> None:
        over.wait()
        heard.append(topology.by_alias["replica1"].state)  # type: ignore[attr-defined]

    with checking(targets_of(healed_cluster), on_change=listen, **BRISK) as checker:
        try:
            wait_until_online(checker)
            healed_cluster.replicas[0].kill()
            wait_for_states(checker, replica1=HostState.OFFLINE)
            healed_cluster.replicas[0].start()
            wait_until_online(checker)
            assert heard == []
        finally:
            over.set()
        wait_until(lambda: heard[-1:] == [HostState.ONLINE] and HostState.OFFLINE in heard, timeout=20, what="the listener to hear it all")
    assert len(lines_about(caplog, "replica1")) == 3


def test_answer_to_a_question_from_before_the_sleep_is_not_believed(healed_cluster: Cluster) -> None:
    """Nobody knows when it was true: each of these answers arrives after the process has slept."""
    jumps = 0.0
    with slow_path(healed_cluster.replicas[1].port) as path:
        behind_it = target_at("replica2", "127.0.0.1", path.port, dbname="postgres", user=PLAIN_ROLE)
        targets = [*targets_of(healed_cluster)[:2], behind_it]
        with checking(targets, clock=lambda: now() + jumps) as checker:
            wait_until_online(checker)
            path.seconds = 0.5
            seen = set()
            for step in range(60):
                jumps += 1000 if step % 4 == 0 else 0
                time.sleep(0.05)
                # A look that was answered before the first jump may have counted.
                seen.update([host_of(checker, "replica2").state] if step > 12 else [])
            assert seen == {HostState.UNKNOWN}
            wait_until_online(checker)


FROZEN = """
import sys, time
from django_pglb.core.config import ClusterConfig, ReplicaConfig
from django_pglb.health.checker import Checker
from django_pglb.health.clock import now
from django_pglb.health.target import target_from_params

def target(alias, port):
    params = {{"host": "127.0.0.1", "port": port, "dbname": "postgres", "user": "plain"}}
    return target_from_params(alias, params, is_primary=alias == "primary")

targets = [target("primary", {primary}), target("replica", {replica})]
config = ClusterConfig(primary="primary", replicas=(ReplicaConfig(alias="replica"),), check_interval=0.1, check_timeout=1.0)
checker = Checker({{"primary": targets}}, {{"primary": config}})
checker.ensure_running()
while not checker.topology("primary").online:
    time.sleep(0.001)
# Before it says so: it may be frozen at once.
latest = now()
print("online", flush=True)
while True:
    began_at = now()
    topology = checker.topology("primary")
    if began_at - latest > 2 and topology.online:
        print("trusted", now() - topology.online[0].sampled_at, flush=True)
        break
    if began_at - latest > 2:
        slept_until = began_at
        while now() < slept_until + 2:
            topology = checker.topology("primary")
            if topology.online:
                print("trusted later", topology.online[0], flush=True)
                sys.exit()
        print("fine", flush=True)
        break
    latest = began_at
"""


def test_process_that_was_frozen_does_not_trust_what_it_saw_before(healed_cluster: Cluster) -> None:
    """From its first look at the topology on, and of a replica that was cut off meanwhile not later either."""
    primary, replica = healed_cluster.primary, healed_cluster.replicas[0]
    script = FROZEN.format(primary=primary.port, replica=replica.port)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "online\n"
            os.kill(process.pid, signal.SIGSTOP)
            replica.pause_replay()
            primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
            time.sleep(TRUSTED_SECONDS + 1)
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "fine\n"
        finally:
            process.kill()
