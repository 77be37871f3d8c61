"""Django's pool of connections on a replica: nobody waits in it for a host that others can stand in for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections
from psycopg_pool import TooManyRequests

from django_pglb import current_decisions, routing_session
from django_pglb.backends import mixin
from django_pglb.backends.errors import HostIsOut
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Entry
from .test_failover import fill, stop_checking

# psycopg's pool waits for 30 s, the connection to a replica takes 2 s at most.
QUICK = 15


@pytest.fixture
def pool(site: Site) -> Iterator[Callable[..., Any]]:
    """Give the first replica a pool of such options."""
    fill(site)
    connection: Any = connections["replica1"]
    before = connection.settings_dict["OPTIONS"]

    def configure(options: Any, **others: Any) -> Any:
        connection.close()
        connection.settings_dict["OPTIONS"] = {"pool": options, **others}
        return connection

    yield configure
    connection.close()
    connection.close_pool()
    connection.settings_dict["OPTIONS"] = before


def count() -> Any:
    """Count on the first replica; return what it was, who said so, and after how long."""
    began = time.monotonic()
    try:
        with routing_session():
            found = Entry.objects.using("replica1").count()
            ((alias, reason, _),) = current_decisions()
            return found, alias, reason, time.monotonic() - began
    finally:
        connections.close_all()


def hold(taken: Event, done: Event) -> None:
    try:
        connections["replica1"].ensure_connection()
        taken.set()
        done.wait(60)
    finally:
        connections.close_all()


CONFIGURED = {"min_size": 1, "max_size": 2, "timeout": 60, "reconnect_timeout": 600}


@pytest.mark.parametrize("health_checks", [False, True])
@pytest.mark.parametrize("options", [True, CONFIGURED], ids=["default", "configured"])
def test_dead_replica_is_not_waited_for_in_its_pool(
    site: Site, pool: Callable[..., Any], options: Any, health_checks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just died, no look has seen it, and every thread wants a connection: each is answered by another host, and soon."""
    connection = pool(options)
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", health_checks)
    connection.ensure_connection()
    connection.close()
    connection.pool.wait()
    stop_checking(monkeypatch)
    site.cluster.replicas[0].kill()
    with ThreadPoolExecutor(8) as threads:
        answers = [future.result() for future in [threads.submit(count) for _ in range(8)]]
    assert {answer[:3] for answer in answers} <= {(5, "replica2", Reason.FAILOVER), (5, "replica2", Reason.REPLICA)}
    assert max(seconds for *_, seconds in answers) < QUICK


@pytest.mark.parametrize("options", [True, CONFIGURED], ids=["default", "configured"])
def test_exhausted_pool_is_given_up_as_soon_as_a_connect(site: Site, pool: Callable[..., Any], options: Any) -> None:
    """All its connections are taken, the host is well."""
    connection = pool(options)
    size = connection.pool.max_size
    held, done = [Event() for _ in range(size)], Event()
    with ThreadPoolExecutor(size) as threads:
        for taken in held:
            threads.submit(hold, taken, done)
        try:
            assert all(taken.wait(60) for taken in held)
            found, alias, reason, seconds = count()
        finally:
            done.set()
    assert (found, alias, reason) == (5, "replica2", Reason.FAILOVER)
    assert seconds < QUICK


def test_those_who_wait_in_the_pool_of_a_frozen_host_are_freed(site: Site, pool: Callable[..., Any], settings: Any) -> None:
    """The checker calls it offline: whatever the pool's own limits are, nobody waits any longer."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_TIMEOUT": 2}}
    site.wait_until_online()
    connection = pool({"min_size": 1, "max_size": 1, "timeout": 100}, connect_timeout=100)
    taken, done = Event(), Event()
    with ThreadPoolExecutor(5) as threads:
        threads.submit(hold, taken, done)
        try:
            assert taken.wait(60)
            waiting = [threads.submit(count) for _ in range(4)]
            wait_until(lambda: connection.pool.get_stats().get("requests_queued", 0) >= 4, timeout=30, what="four to wait")
            site.cluster.replicas[0].freeze()
            answers = [future.result() for future in waiting]
        finally:
            done.set()
    assert {answer[:3] for answer in answers} == {(5, "replica2", Reason.FAILOVER)}
    assert max(seconds for *_, seconds in answers) < 60


@pytest.mark.parametrize("health_checks", [False, True])
def test_replica_that_froze_costs_each_reader_one_wait(
    site: Site, pool: Callable[..., Any], settings: Any, monkeypatch: pytest.MonkeyPatch, health_checks: bool
) -> None:
    """All connections of its pool are idle and silent: they are ended together, and none is tried after the other."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_TIMEOUT": 2}}
    site.wait_until_online()
    connection = pool(True)
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", health_checks)
    connection.ensure_connection()
    connection.close()
    connection.pool.wait()
    frozen = site.cluster.replicas[0]
    frozen.freeze()
    with ThreadPoolExecutor(8) as threads:
        answers = [future.result() for future in [threads.submit(count) for _ in range(8)]]
    assert {answer[:2] for answer in answers} == {(5, "replica2")}
    assert max(seconds for *_, seconds in answers) < QUICK
    frozen.thaw()
    site.wait_for_states(replica1=HostState.ONLINE)
    assert count()[:3] == (5, "replica1", Reason.REPLICA)


def test_pool_of_a_replica_that_has_come_back_is_used_at_once(site: Site, pool: Callable[..., Any]) -> None:
    """Its attempts to connect, which come at ever longer intervals, are forgotten: the next reader makes another."""
    connection = pool({"min_size": 2, "max_size": 2})
    connection.ensure_connection()
    connection.close()
    replica = site.cluster.replicas[0]
    taken = [connection.pool.getconn() for _ in range(2)]
    replica.kill()
    for raw in taken:
        with pytest.raises(psycopg.OperationalError):
            raw.execute("SELECT 1")
        connection.pool.putconn(raw)
    wait_until(lambda: connection.pool.get_stats().get("connections_errors", 0) >= 4, timeout=60, what="attempts to fail")
    replica.start()
    site.wait_for_states(replica1=HostState.ONLINE)
    assert count()[:3] == (5, "replica1", Reason.REPLICA)


def test_who_has_given_up_waiting_counts_no_more(site: Site, pool: Callable[..., Any]) -> None:
    """psycopg's queue keeps them until a connection comes; with `max_waiting` nobody would be let in who could make one."""
    connection = pool({"min_size": 1, "max_size": 1, "max_waiting": 1})
    connection.ensure_connection()
    connection.close()
    replica = site.cluster.replicas[0]
    raw = connection.pool.getconn()
    replica.kill()
    with pytest.raises(psycopg.OperationalError):
        raw.execute("SELECT 1")
    connection.pool.putconn(raw)
    with pytest.raises(psycopg.OperationalError):
        connection.pool.getconn()
    wait_until(lambda: connection.pool.get_stats()["pool_size"] == 0, timeout=60, what="the pool to give up its attempts")
    replica.start()
    site.wait_for_states(replica1=HostState.ONLINE)
    assert count()[:3] == (5, "replica1", Reason.REPLICA)


def test_no_more_wait_for_a_taken_connection_than_may(site: Site, pool: Callable[..., Any]) -> None:
    """`max_waiting`: whoever comes then is answered by another host, long before the others have given up."""
    connection = pool({"min_size": 1, "max_size": 1, "max_waiting": 1}, connect_timeout=100)
    taken, done = Event(), Event()
    with ThreadPoolExecutor(2) as threads:
        threads.submit(hold, taken, done)
        try:
            assert taken.wait(60)
            first = threads.submit(connection.pool.getconn)
            wait_until(lambda: connection.pool.waiting == 1, timeout=30, what="somebody to wait")
            with pytest.raises(TooManyRequests):
                connection.pool.getconn()
        finally:
            done.set()
        connection.pool.putconn(first.result())


def test_nobody_connects_to_a_host_that_is_out(site: Site, pool: Callable[..., Any]) -> None:
    """Neither by a pool nor without one, as whoever opens a transaction there would: that may take the whole `connect_timeout`."""
    site.cluster.replicas[0].kill()
    site.wait_for_states(replica1=HostState.OFFLINE)
    for options in (True, False):
        connection = pool(options)
        with pytest.raises(OperationalError, match="is out") as raised:
            connection.ensure_connection()
        assert isinstance(raised.value.__cause__, HostIsOut)


def test_pool_of_the_primary_is_waited_for_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has taken all the time that it was given, and tried again by itself: `PRIMARY_ATTEMPTS` must not make three times 30 s of it."""
    pauses: list[float] = []
    connection: Any = connections["default"]
    connection.close()
    monkeypatch.setattr(mixin, "time", SimpleNamespace(sleep=pauses.append, time=time.time))
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"pool": {"min_size": 1, "max_size": 1, "timeout": 1}})
    try:
        connection.pool.open(wait=True)
        raw = connection.pool.getconn()
        with pytest.raises(OperationalError, match="couldn't get a connection"):
            connection.ensure_connection()
        connection.pool.putconn(raw)
        connection.ensure_connection()
    finally:
        connection.close()
        connection.close_pool()
    assert pauses == []
