"""`READ_TIMEOUT`: one backend stands still while its host answers the checker, and its reader is answered by another host."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_pglb import current_decisions, routing_session, runtime, use_replicas
from django_pglb.backends.errors import ReadTimedOut
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .guestbook.models import Entry
from .test_failover import fill

SECONDS = 1.0
# The backend stands still for so long if nobody gives up.
STALL_SECONDS = 30


@pytest.fixture
def timed(site: Site, settings: Any) -> Site:
    """The site with a timeout for reads, and connections that know it."""
    fill(site)
    settings.PGLB = {"default": {**settings.PGLB["default"], "READ_TIMEOUT": SECONDS}}
    for alias in ("replica1", "replica2"):
        connections[alias].close()
    site.wait_until_online()
    return site


@contextmanager
def stalled(*aliases: str) -> Iterator[None]:
    """The backends of this thread's connections stand still, and nobody else does."""
    pids = []
    for alias in aliases:
        connections[alias].ensure_connection()
        pids.append(connections[alias].connection.info.backend_pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def count_by_orm() -> int:
    return Entry.objects.using("replica1").count()


def count_by_iterator() -> int:
    return len(list(Entry.objects.using("replica1").iterator(chunk_size=2)))


def count_by_stream() -> int:
    with connections["replica1"].cursor() as cursor:
        return len(list(cursor.stream("SELECT id FROM guestbook_entry")))


def count_by_copy() -> int:
    with connections["replica1"].cursor() as cursor, cursor.copy("COPY guestbook_entry (id) TO STDOUT") as copy:
        return len(list(copy.rows()))


READS = {"orm": count_by_orm, "iterator": count_by_iterator, "stream": count_by_stream, "copy": count_by_copy}


@pytest.mark.parametrize("health_checks", [False, True])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_read_whose_backend_stalls_is_answered_by_another_host(
    timed: Site, read: Callable[[], int], health_checks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The host is well, so nothing else would end the wait. It is told of, and the host returns when it is looked at."""
    connection = connections["replica1"]
    with stalled("replica1"), routing_session():
        connection.health_check_enabled, connection.health_check_done = health_checks, False
        began = time.monotonic()
        assert read() == 5
        assert SECONDS / 2 < time.monotonic() - began < STALL_SECONDS / 2
        assert {(decision.alias, decision.reason) for decision in current_decisions()} == {("replica2", Reason.FAILOVER)}
    wait_until(lambda: "did not answer within READ_TIMEOUT" in caplog.text, timeout=30, what="the line that says so")
    timed.wait_for_states(replica1=HostState.ONLINE)


def test_later_read_of_a_page_is_timed_as_well(timed: Site) -> None:
    """Those that the rules were applied to before, which have the shortest way."""
    with routing_session():
        for _ in range(3):
            assert Entry.objects.count() == 5
        ((alias, _, _),) = current_decisions()
        with stalled(alias):
            assert Entry.objects.count() == 5
        (other,) = {"replica1", "replica2"} - {alias}
        assert current_decisions()[-1] == (other, Reason.FAILOVER, 1)


def test_connection_of_a_pool_is_timed_as_well(timed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back to its pool broken, and the pool has another for the next reader."""
    connection: Any = connections["replica1"]
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"pool": {"min_size": 1, "max_size": 2}})
    try:
        with stalled("replica1"), routing_session():
            assert count_by_orm() == 5
            assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)
        timed.wait_for_states(replica1=HostState.ONLINE)
        with routing_session():
            assert count_by_orm() == 5
            assert current_decisions() == (("replica1", Reason.REPLICA, 1),)
    finally:
        connection.close()
        connection.close_pool()


def test_read_that_is_slow_everywhere_is_left_to_the_primary(timed: Site) -> None:
    """Two hosts have run out of time, so nobody suspects a third, and the primary is given all the time that it takes."""
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*), (SELECT pg_sleep(3)) FROM guestbook_entry")
        assert cursor.fetchone() == (5, "")
        assert current_decisions() == (("default", Reason.FAILOVER, 1),)


def test_reads_in_time_and_connections_at_rest_are_left_alone(timed: Site) -> None:
    """What counts is one read, not how long a connection lives."""
    with routing_session():
        for _ in range(4):
            assert Entry.objects.using("replica1").count() == 5
            with connections["replica1"].cursor() as cursor:
                cursor.execute("SELECT count(*), (SELECT pg_sleep(0.4)) FROM guestbook_entry")
        assert {decision.alias for decision in current_decisions()} == {"replica1"}


def test_rows_after_the_first_are_not_timed(timed: Site) -> None:
    """A reader may take its time between them, and nobody else could go on from there."""
    with routing_session():
        rows = Entry.objects.using("replica1").order_by("pk").iterator(chunk_size=2)
        found = [next(rows)]
        time.sleep(SECONDS * 1.5)
        found += rows
        assert len(found) == 5
        assert {decision.alias for decision in current_decisions()} == {"replica1"}


def test_transaction_on_a_replica_is_not_timed(timed: Site) -> None:
    """Nobody else has its snapshot: to give it up would be an error."""
    with routing_session(), use_replicas(), transaction.atomic(using="replica1"), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*), (SELECT pg_sleep(2)) FROM guestbook_entry")
        assert cursor.fetchone() == (5, "")


def test_read_in_a_views_unused_block_is_timed_as_well(timed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ATOMIC_REQUESTS` opens a transaction on the primary, in which the read is not."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    def page(request: HttpRequest) -> HttpResponse:
        with stalled("replica1"):
            return HttpResponse(count_by_orm())

    with override_settings(ROOT_URLCONF=(path("page/", page),)):
        response = Client().get("/page/")
    assert response.content == b"5"
    assert Served(response).decisions == [("replica2", Reason.FAILOVER, 1)]


def test_transaction_without_a_block_is_not_timed(timed: Site) -> None:
    """With autocommit off every statement is in one."""
    with routing_session(), use_replicas():
        transaction.set_autocommit(False, using="replica1")
        try:
            with connections["replica1"].cursor() as cursor:
                cursor.execute("SELECT count(*), (SELECT pg_sleep(2)) FROM guestbook_entry")
                assert cursor.fetchone() == (5, "")
        finally:
            connections["replica1"].close()


def test_without_a_timeout_nothing_is_timed(site: Site) -> None:
    """As it is by default: the read takes as long as it takes."""
    fill(site)
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*), (SELECT pg_sleep(2)) FROM guestbook_entry")
        assert cursor.fetchone() == (5, "")
        assert current_decisions() == (("replica1", Reason.REPLICA, 1),)


def test_answer_that_comes_as_it_is_given_up_is_not_used(timed: Site) -> None:
    """The connection is about to be ended, so nothing may go on with it."""
    connections["replica1"].ensure_connection()
    limit = connections["replica1"].pglb_time_limit()
    assert limit is not None
    with pytest.raises(OperationalError, match="READ_TIMEOUT") as raised, limit:
        wait_until(lambda: runtime.conversations.count("replica1") == 0, timeout=30, what="the connection to be ended")
    assert isinstance(raised.value.__cause__, ReadTimedOut)
