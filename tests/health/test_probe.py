"""One look at one host: what it brings back, and when it gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest

from django_pglb.core.probe import Failure, Outcome, Probe
from django_pglb.health.clock import now
from django_pglb.health.loop import ProbeLoop
from django_pglb.health.probe import Link
from django_pglb.health.target import Target
from django_pglb.testing import Cluster

from .aids import deaf_port, target_at, target_of

CONTROL_FUNCTIONS = "pg_control_system(), pg_control_checkpoint(), pg_control_recovery()"


def look(target: Target, timeout: float = 5, during: Callable[[Link], Coroutine[Any, Any, Outcome]] = Link.probe) -> Outcome:
    """Return what a look brings back."""

    async def run() -> Outcome:
        link = Link(target, timeout, now)
        try:
            return await during(link)
        finally:
            link.sever()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=ProbeLoop) as runner:
        return runner.run(run())


def probe_of(target: Target) -> Probe:
    outcome = look(target)
    assert isinstance(outcome, Probe), outcome
    return outcome


def failure_of(target: Target, timeout: float = 5) -> Failure:
    outcome = look(target, timeout)
    assert isinstance(outcome, Failure), outcome
    return outcome


def test_primary_tells_its_position_and_timeline(cluster: Cluster) -> None:
    """All of it certain."""
    before = cluster.primary.write_lsn
    probe = probe_of(target_of(cluster.primary))
    # Not equal: a server writes records of its own accord.
    assert before <= probe.lsn <= cluster.primary.write_lsn
    assert (probe.in_recovery, probe.timeline, probe.is_timeline_certain) == (False, 1, True)
    assert probe.started_at < probe.at


def test_replica_of_a_plain_role_tells_all_but_the_receiver(cluster: Cluster) -> None:
    """That there is a receiver is seen, its timeline is not: control data stands in for it."""
    # A standby that was restarted has received nothing until something is written.
    cluster.primary.ask("SELECT pg_logical_emit_message(true, 'pglb', 'x')")
    written = cluster.primary.write_lsn
    cluster.wait_until_replicas_caught_up()
    probe = probe_of(target_of(cluster.replicas[0]))
    assert (probe.in_recovery, probe.has_receiver, probe.sees_receiver) == (True, True, False)
    assert (probe.timeline, probe.is_timeline_certain) == (1, False)
    assert written <= probe.lsn <= probe.received_lsn <= cluster.primary.write_lsn
    assert probe.system_identifier == probe_of(target_of(cluster.primary)).system_identifier


def test_pg_read_all_stats_makes_the_timeline_certain(cluster: Cluster) -> None:
    """The receiver's own timeline is seen."""
    cluster.create_role("monitor", monitor=True)
    cluster.wait_until_replicas_caught_up()
    probe = probe_of(target_of(cluster.replicas[0], user="monitor"))
    assert (probe.timeline, probe.is_timeline_certain, probe.sees_receiver) == (1, True, True)


@pytest.fixture
def without_control_data(cluster: Cluster) -> Iterator[None]:
    cluster.primary.ask(f"REVOKE EXECUTE ON FUNCTION {CONTROL_FUNCTIONS} FROM PUBLIC")
    cluster.wait_until_replicas_caught_up()
    yield
    cluster.primary.ask(f"GRANT EXECUTE ON FUNCTION {CONTROL_FUNCTIONS} TO PUBLIC")


@pytest.mark.usefixtures("without_control_data")
def test_role_that_may_not_read_control_data_still_probes(cluster: Cluster) -> None:
    """Only what control data shows is missing."""
    probe = probe_of(target_of(cluster.replicas[0]))
    assert (probe.system_identifier, probe.timeline) == (None, None)
    assert probe.lsn is not None


def test_probe_is_read_only_and_named(cluster: Cluster) -> None:
    """The server sees who asks, and would not let it write; behind a pooler, and on a primary, no startup options are sent."""
    replica = target_of(cluster.replicas[0])
    assert "default_transaction_read_only=on" in replica.probe_params(1)["options"]
    assert "options" not in target_of(cluster.replicas[0], pooled=True).probe_params(1)
    assert "options" not in target_of(cluster.primary).probe_params(1)
    with psycopg.connect(**replica.probe_params(1)) as connection:
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
    assert replica.probe_params(1)["application_name"] == "django-pglb-checker"


def test_users_own_options_are_kept() -> None:
    """The probe's are appended."""
    target = target_at("r", "h", 1, options="-c work_mem=1MB")
    assert target.probe_params(0.5)["options"] == "-c work_mem=1MB -c default_transaction_read_only=on -c statement_timeout=500"


def test_what_libpq_does_not_know_is_left_out() -> None:
    """A driver's own settings do not stop a probe."""
    target = target_at("r", "h", 1, cursor_factory=object, prepare_threshold=None, context=object(), sslmode="require")
    assert target.params == {"host": "h", "port": "1", "dbname": "x", "user": "x", "sslmode": "require"}


def test_refused_connection_fails_at_once() -> None:
    """The reason is in plain words."""
    with deaf_port() as port:
        pass  # nobody listens there any more
    started_at = time.monotonic()
    assert failure_of(target_at("r", "127.0.0.1", port)).why == "connection refused (OperationalError)"
    assert time.monotonic() - started_at < 4


def test_deaf_host_is_given_up_on_time() -> None:
    """Well below psycopg's least connection timeout of two seconds."""
    with deaf_port() as port:
        started_at = time.monotonic()
        assert failure_of(target_at("r", "127.0.0.1", port), 0.3).why == "no answer within 0.3 s"
        assert 0.3 <= time.monotonic() - started_at < 2


def test_frozen_host_is_given_up_on_an_open_connection(healed_cluster: Cluster) -> None:
    """Also in the middle of a statement, and without waiting to take leave."""
    replica = healed_cluster.replicas[0]

    async def freeze_between(link: Link) -> Outcome:
        assert isinstance(await link.probe(), Probe)
        replica.freeze()
        return await link.probe(0.3)

    started_at = time.monotonic()
    outcome = look(target_of(replica), during=freeze_between)
    assert isinstance(outcome, Failure)
    assert time.monotonic() - started_at < 10


def test_starved_process_does_not_call_a_host_dead(cluster: Cluster) -> None:
    """The answer came in time; that nobody read it is no fault of the host."""

    async def starve(link: Link) -> Outcome:
        assert isinstance(await link.probe(), Probe)
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(time.sleep, 0.6))
        return await link.probe(0.2)

    assert isinstance(look(target_of(cluster.replicas[0]), during=starve), Probe)


def test_starved_process_waits_for_an_answer_that_comes_late(healed_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that passed while the process slept counts only after a look on schedule."""
    monkeypatch.setattr("django_pglb.health.deadline.GRACE_SECONDS", 2.0)
    replica = healed_cluster.replicas[0]

    async def starve_while_frozen(link: Link) -> Outcome:
        assert isinstance(await link.probe(), Probe)
        replica.freeze()
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, lambda: (time.sleep(0.5), replica.thaw()))
        return await link.probe(0.2)

    assert isinstance(look(target_of(replica), during=starve_while_frozen), Probe)


def test_host_is_let_go_of_although_the_cancellation_is_lost(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that comes about after the link was severed is nobody's: it is ended, and no probe runs on it."""
    connect = psycopg.AsyncConnection.connect
    made: list[psycopg.AsyncConnection[Any]] = []

    async def deaf_to_cancellation(*args: Any, **kwargs: Any) -> psycopg.AsyncConnection[Any]:
        connecting = asyncio.create_task(connect(*args, **kwargs))
        try:
            made.append(await asyncio.shield(connecting))
        except asyncio.CancelledError:
            made.append(await connecting)
        return made[0]

    async def sever_while_connecting(link: Link) -> Outcome:
        probing = asyncio.create_task(link.probe())
        await asyncio.sleep(0)  # the probe begins its task, which begins to connect
        await asyncio.sleep(0)
        link.sever()
        return await probing

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", deaf_to_cancellation)
    outcome = look(target_of(cluster.primary), during=sever_while_connecting)
    assert isinstance(outcome, Failure)
    assert [connection.closed for connection in made] == [True]
