"""A host that accepts and never answers: whoever waits for it is let go, and answered by another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections, transaction

from django_pglb import current_decisions, routing_session, runtime, use_replicas
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Entry
from .test_failover import fill, stop_checking

RUNNING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep')"
)
SLOW = "SELECT count(*), (SELECT pg_sleep(2)) FROM guestbook_entry"

# Hanging for ever is what must not happen, and what plain Django does; how soon a read is answered is measured elsewhere.
LONG = 60


@pytest.fixture
def quick(site: Site, settings: Any) -> Site:
    """The site with a timeout of the checker that a test can wait for, and a busy machine cannot miss."""
    fill(site)
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_TIMEOUT": 2}}
    site.wait_until_online()
    return site


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    def closing() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return closing


def test_read_that_waits_for_a_frozen_host_is_answered_by_another(quick: Site) -> None:
    """Frozen in the middle of the statement."""

    def read() -> Any:
        with routing_session(), connections["replica1"].cursor() as cursor:
            cursor.execute(SLOW)
            return cursor.fetchone(), current_decisions()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(in_thread(read))
        frozen = quick.cluster.replicas[0]
        wait_until(lambda: frozen.ask(RUNNING), timeout=LONG, what="the read to run")
        frozen.freeze()
        assert answer.result(timeout=LONG) == ((5, ""), (("replica2", Reason.FAILOVER, 1),))
    quick.wait_for_states(replica1=HostState.OFFLINE, replica2=HostState.ONLINE)


def test_read_sent_to_a_frozen_host_is_answered_by_another(quick: Site) -> None:
    """The connection was open and idle when it froze, and the checker has not noticed yet."""

    def read() -> Any:
        with routing_session():
            assert Entry.objects.using("replica1").count() == 5
            quick.cluster.replicas[0].freeze()
            return Entry.objects.using("replica1").count(), current_decisions()[-1]

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(in_thread(read))
        assert answer.result(timeout=LONG) == (5, ("replica2", Reason.FAILOVER, 1))


def test_nobody_connects_to_a_host_that_froze_under_a_health_check(quick: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CONN_HEALTH_CHECKS`: the check is severed when the checker calls the host offline, and the next connection is another host's."""
    connected: list[int] = []
    connect = psycopg.connect

    def noting(*args: Any, **params: Any) -> Any:
        connected.append(params["port"])
        return connect(*args, **params)

    def read() -> Any:
        connection = connections["replica1"]
        connection.settings_dict = {**connection.settings_dict, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
        connection.ensure_connection()
        connection.close_if_unusable_or_obsolete()  # as a request that begins does
        quick.cluster.replicas[0].freeze()
        monkeypatch.setattr(psycopg, "connect", noting)
        with routing_session():
            return Entry.objects.using("replica1").count(), current_decisions()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(in_thread(read))
        assert answer.result(timeout=LONG) == (5, (("replica2", Reason.FAILOVER, 1),))
    assert connected == [quick.cluster.replicas[1].port]


def test_connecting_to_a_frozen_host_ends(quick: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the timeout of the connection itself, so also where no checker notices."""
    stop_checking(monkeypatch)
    quick.cluster.replicas[0].freeze()
    connections["replica1"].close()
    with routing_session():
        assert Entry.objects.using("replica1").count() == 5
        assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)


def test_first_fetch_from_a_frozen_host_is_answered_by_another(quick: Site) -> None:
    """A named cursor meets the server again when it fetches: before its first row another host can run the statement."""

    def read() -> Any:
        with routing_session():
            cursor = connections["replica1"].chunked_cursor()
            cursor.execute("SELECT id FROM guestbook_entry")
            quick.cluster.replicas[0].freeze()
            rows = cursor.fetchmany(10)
            cursor.close()
            return len(rows), {decision.alias for decision in current_decisions()}

    with ThreadPoolExecutor(1) as pool:
        rows, aliases = pool.submit(in_thread(read)).result(timeout=LONG)
    assert rows == 5
    assert aliases <= {"replica1", "replica2"}


def test_transaction_on_a_frozen_host_is_an_error(quick: Site) -> None:
    """Nobody else has its snapshot; it ends all the same."""

    def read() -> None:
        with use_replicas(), transaction.atomic(using="replica1"):
            Entry.objects.using("replica1").count()
            quick.cluster.replicas[0].freeze()
            Entry.objects.using("replica1").count()

    with ThreadPoolExecutor(1) as pool, pytest.raises(OperationalError):
        pool.submit(in_thread(read)).result(timeout=LONG)


def test_nobody_is_sent_to_a_host_that_is_known_to_be_frozen(quick: Site) -> None:
    """Once the checker has declared it, nobody waits for it any more."""
    quick.cluster.replicas[0].freeze()
    quick.wait_for_states(replica1=HostState.OFFLINE)
    for _ in range(10):
        with routing_session():
            assert Entry.objects.count() == 5
            assert current_decisions() == (("replica2", Reason.REPLICA, 1),)
    quick.cluster.replicas[0].thaw()
    quick.wait_for_states(replica1=HostState.ONLINE)


def test_only_connections_to_replicas_are_watched_over(quick: Site) -> None:
    """A write whose answer is late is not made one whose outcome is unknown."""
    for alias in ("default", "replica1", "replica2"):
        connections[alias].ensure_connection()
    counts = {alias: runtime.conversations.count(alias) for alias in ("default", "replica1", "replica2")}
    assert (counts["default"], counts["replica1"] > 0, counts["replica2"] > 0) == (0, True, True)
    before = counts["replica1"]
    connections["replica1"].close()
    assert runtime.conversations.count("replica1") == before - 1
