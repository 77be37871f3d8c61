"""A replica's trouble is not the user's."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models.functions import JSONObject
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_pglb import current_decisions, mark_write, placement, routing_session, runtime, use_replicas
from django_pglb.backends import mixin
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.health.clock import now
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .guestbook.models import Entry

READS: dict[str, Callable[[], int]] = {
    "count": lambda: Entry.objects.count(),
    "iterator": lambda: len(list(Entry.objects.iterator(chunk_size=2))),
    "raw cursor": lambda: _raw_count(),
}


def _raw_count() -> int:
    with connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM guestbook_entry")
        return int(cursor.fetchone()[0])


def fill(site: Site, count: int = 5) -> None:
    Entry.objects.bulk_create([Entry(text=str(number)) for number in range(count)])
    site.cluster.wait_until_replicas_caught_up()


def stop_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the topology stay as it is, so that a read and not a probe finds out what happens next."""
    checker = runtime.get_runtime().checker
    checker.stop()
    monkeypatch.setattr(checker, "ensure_running", lambda: None)


# Five seconds for the backend to be gone: until then it might answer one more statement.
TERMINATE = (
    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
    " WHERE datname = 'site' AND application_name = '' AND pid <> pg_backend_pid()"
)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_read_whose_connection_was_terminated_is_answered(site: Site, read: Callable[[], int]) -> None:
    """The connection breaks under the unit of work, its host is well: a new connection to it answers, and it stays in the rotation."""
    fill(site)
    connections["replica1"].ensure_connection()
    connections["replica2"].ensure_connection()
    with routing_session():
        assert read() == 5
        ((alias, *_),) = current_decisions()
        opened_at = connections[alias].pglb_opened_at
        wait_until(lambda: placement.has_been_well_since(alias, opened_at), timeout=20, what="a probe")
        site.host(alias).ask(TERMINATE)
        assert read() == 5
        assert {(d.alias, d.reason) for d in current_decisions()} == {(alias, Reason.REPLICA)}
    assert len(runtime.get_runtime().topology("default").online) == 2


def test_connection_that_is_known_to_be_closed_is_a_database_error_of_djangos(site: Site) -> None:
    """psycopg refuses a cursor on one: a replica's next statement goes where it can, the primary's caller gets what Django would raise."""
    fill(site)
    for alias in ("replica1", "default"):
        connections[alias].ensure_connection()
    opened_at = connections["replica1"].pglb_opened_at
    wait_until(lambda: placement.has_been_well_since("replica1", opened_at), timeout=20, what="a probe")
    for alias in ("replica1", "default"):
        connections[alias].connection.close()
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM guestbook_entry")
        assert cursor.fetchone() == (5,)
        assert [(decision.alias, decision.reason) for decision in current_decisions()] == [("replica1", Reason.REPLICA)]
    with pytest.raises(OperationalError, match="closed"):
        connections["default"].cursor()
    connections["default"].close()


def test_connections_of_a_pool_that_outlived_a_restart_take_nobody_out(site: Site, reported: list[str]) -> None:
    """A pool hands out what it made long ago: what breaks then was broken before, and says nothing about the host now."""
    for alias in ("replica1", "replica2"):
        connections[alias].close()
        connections[alias].settings_dict["OPTIONS"] = {"pool": {"min_size": 2, "max_size": 4}}
    try:
        for alias in ("replica1", "replica2"):
            connections[alias].ensure_connection()
            connections[alias].pool.wait()
            connections[alias].close()
        opened_before = now()
        wait_until(
            lambda: all(placement.has_been_well_since(a, opened_before) for a in ("replica1", "replica2")), timeout=20, what="probes"
        )
        for host in site.cluster.replicas:
            host.ask(TERMINATE)
        with routing_session():
            assert Entry.objects.count() == 0
            assert {decision.reason for decision in current_decisions()} == {Reason.REPLICA}
        assert reported == []
    finally:
        for alias in ("replica1", "replica2"):
            connections[alias].close()
            connections[alias].close_pool()
            connections[alias].settings_dict["OPTIONS"] = {}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_read_on_a_host_that_died_is_answered_by_another(site: Site, read: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The value is right, another host gave it, and the reason is failover."""
    fill(site)
    with routing_session():
        assert read() == 5
        ((alias, *_),) = current_decisions()
        stop_checking(monkeypatch)
        site.host(alias).kill()
        assert read() == 5
        other = current_decisions()[-1]
        assert (other.alias != alias, other.reason) == (True, Reason.FAILOVER)


def test_killed_replica_leaves_the_rotation_and_comes_back(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Every request is answered while it is dead, one line says that it left and one that it returned, and then it serves again."""
    caplog.set_level(logging.INFO, logger="django_pglb.health")
    fill(site)
    site.cluster.replicas[0].kill()
    served = [Served(Client().get("/newest/")) for _ in range(20)]
    assert {alias for one in served for alias in one.aliases} == {"replica2"}
    site.wait_for_states(replica1=HostState.OFFLINE)
    site.cluster.replicas[0].start()
    site.wait_for_states(replica1=HostState.ONLINE)
    aliases = {alias for _ in range(40) for alias in Served(Client().get("/newest/")).aliases}
    assert aliases == {"replica1", "replica2"}

    def lines(state: str) -> list[str]:
        return [text for text in caplog.messages if text.startswith("replica1 ") and state in text]

    wait_until(lambda: lines(" is online, was offline"), timeout=20, what="the line that says that it is back")
    assert (len(lines(" is offline")), len(lines(" is online, was offline"))) == (1, 1)


def test_all_replicas_dead_the_primary_serves(site: Site) -> None:
    """Then the reason is that no replica is there."""
    fill(site)
    for replica in site.cluster.replicas:
        replica.kill()
    response = Client().get("/newest/")
    assert response.json() == {"text": "4"}
    assert Served(response).aliases == {"default"}
    site.wait_for_states(replica1=HostState.OFFLINE, replica2=HostState.OFFLINE)
    assert Served(Client().get("/newest/")).reasons == {Reason.NO_REPLICA}


def test_iterator_fails_over_before_its_first_row_and_never_after(site: Site) -> None:
    """Another server has another snapshot: a result is never stitched together from two."""
    fill(site, 10)
    with use_replicas(), transaction.atomic(using="replica2"):
        pass
    with routing_session():
        rows = Entry.objects.order_by("pk").iterator(chunk_size=2)
        assert next(rows).text == "0"
        ((alias, *_),) = current_decisions()
        site.host(alias).kill()
        with pytest.raises(DatabaseError):
            list(rows)


def test_failing_over_does_not_break_the_promise(site: Site) -> None:
    """The replica that is there dies, the one that is left is behind: the primary answers the writer."""
    fill(site)
    site.cluster.replicas[1].pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="new")
    site.cluster.replicas[0].wait_until_caught_up()
    site.cluster.replicas[0].kill()
    with routing_session(identity=("test", "writer")):
        assert Entry.objects.count() == 6
        assert {d.alias for d in current_decisions()} == {"default"}


@pytest.fixture
def reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are reported to the checker from now on."""
    aliases: list[str] = []
    monkeypatch.setattr(runtime.get_runtime().checker, "report_failure", lambda alias, why: aliases.append(alias))
    return aliases


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT 1/0", "division by zero"),
        ("SELECT count(*) FROM pg_class WHERE", "syntax error"),
        ("SELECT count(*) FROM generate_series(1, 1000000000)", "statement timeout"),
    ],
    ids=["division by zero", "syntax error", "statement timeout"],
)
def test_callers_own_errors_are_raised_and_take_nobody_out(site: Site, reported: list[str], statement: str, message: str) -> None:
    """Plain Django's exceptions, from the replica, which stays and answers what comes next."""
    options = connections["replica1"].settings_dict["OPTIONS"]
    connections["replica1"].close()
    connections["replica1"].settings_dict["OPTIONS"] = {"options": "-c statement_timeout=200ms"}
    try:
        with routing_session(), connections["replica1"].cursor() as cursor:
            with pytest.raises(DatabaseError, match=message):
                cursor.execute(statement)
            cursor.execute("SELECT 1")
            assert current_decisions() == (("replica1", Reason.REPLICA, 2),)
    finally:
        connections["replica1"].settings_dict["OPTIONS"] = options
        connections["replica1"].close()
    assert reported == []


def test_relation_that_is_not_replayed_yet_is_read_from_the_primary(site: Site) -> None:
    """A migration in flight: once, without an error, and the unit stays there."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS migrated (n int)")
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM migrated")
        assert cursor.fetchone() == (0,)
        assert Entry.objects.count() == 0
        assert {(d.alias, d.reason) for d in current_decisions()} == {("default", Reason.FAILOVER)}
    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE migrated")


def test_replica_connections_are_read_only_and_bounded(site: Site) -> None:
    """Read-only by default, with keepalives and timeouts; the user's own settings win."""
    params = connections["replica1"].get_connection_params()
    assert params["options"] == "-c default_transaction_read_only=on"
    assert (params["connect_timeout"], params["keepalives"], params["tcp_user_timeout"]) == (2, 1, 3000)
    assert "options" not in connections["default"].get_connection_params()
    settings_dict = connections["replica1"].settings_dict
    settings_dict["OPTIONS"] = {"connect_timeout": 9, "options": "-c statement_timeout=5s"}
    try:
        params = connections["replica1"].get_connection_params()
        assert (params["connect_timeout"], params["options"]) == (9, "-c statement_timeout=5s -c default_transaction_read_only=on")
    finally:
        settings_dict["OPTIONS"] = {}


def test_promoted_replica_takes_no_write(site: Site) -> None:
    """A connection that was open when its server was promoted stays read-only, so a write in disguise fails over instead."""
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT 1")
    connection: Any = connections["replica1"]
    connection.ensure_connection()
    site.cluster.replicas[0].promote()
    with pytest.raises(Exception, match="read-only transaction"):
        connection.connection.execute("INSERT INTO guestbook_author (name) VALUES ('x')")


def test_primary_connection_is_retried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A primary that restarts is waited for, PRIMARY_ATTEMPTS times in all."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        site.cluster.primary.start()

    monkeypatch.setattr(mixin, "time", SimpleNamespace(sleep=pause, time=time.time))
    connections["default"].close()
    site.cluster.primary.stop()
    try:
        assert Entry.objects.count() == 0
    finally:
        site.cluster.primary.start()
    assert len(pauses) == 1
    assert 0.05 <= pauses[0] <= 0.1


def test_failure_is_reported_to_the_checker_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next unit of work does not try the dead host again."""
    fill(site)
    stop_checking(monkeypatch)
    site.cluster.replicas[0].kill()
    with routing_session():
        assert Entry.objects.using("replica1").count() == 5
        assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)
    host = runtime.get_runtime().topology("default").by_alias["replica1"]
    assert (host.state, host.why.startswith("failed a read")) == (HostState.OFFLINE, True)


@contextmanager
def refusing_server() -> Iterator[tuple[int, list[int]]]:
    """A port where every connection is ended at once, and how many there were."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted.append(1)
                connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            yield server.getsockname()[1], accepted
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_host_that_probes_find_well_and_that_refuses_us_is_tried_once(site: Site) -> None:
    """As with a limit on connections: one attempt on each replica, then the primary answers."""
    fill(site)
    with refusing_server() as (port, accepted):
        for alias in ("replica1", "replica2"):
            connections[alias].close()
            connections[alias].settings_dict["PORT"] = port
        try:
            with routing_session():
                assert Entry.objects.count() == 5
                assert current_decisions() == (("default", Reason.FAILOVER, 1),)
        finally:
            for alias, host in zip(("replica1", "replica2"), site.cluster.replicas, strict=True):
                connections[alias].settings_dict["PORT"] = host.port
    assert len(accepted) == 2


def test_statement_that_always_breaks_its_connection_is_moved_on(site: Site) -> None:
    """The connection is older than the latest probe each time; that alone must not send it back to the same host for ever."""
    fill(site)
    over = threading.Event()

    def terminate() -> None:
        victims = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(CASE%'"
        while not over.wait(0.6):
            for host in site.cluster.replicas:
                host.ask(victims + " AND pid <> pg_backend_pid()")

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        with routing_session(), connections["replica1"].cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_sleep(CASE WHEN pg_is_in_recovery() THEN 60 ELSE 0 END)")
            assert [d.alias for d in current_decisions()] == ["default"]
    finally:
        over.set()
        thread.join()


def test_what_no_standby_can_read_is_read_from_the_primary(site: Site) -> None:
    """An unlogged table has no rows on a standby, and plain Django could read it."""
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE UNLOGGED TABLE IF NOT EXISTS scratch (n int)")
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM scratch")
        assert cursor.fetchone() == (0,)
        assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.FAILOVER)]
    assert len(runtime.get_runtime().topology("default").online) == 2


def test_query_that_asks_for_the_servers_version_can_be_compiled_without_a_replica(site: Site) -> None:
    """Some queries do while they are compiled, before any cursor exists. A new thread knows no version yet."""
    fill(site)

    def read() -> list[Any]:
        try:
            with routing_session():
                assert connections["replica1"].pg_version == connections["default"].pg_version > 140000  # type: ignore[attr-defined]
                return list(Entry.objects.annotate(json=JSONObject(text="text")).order_by("pk").values_list("json", flat=True))
        finally:
            connections.close_all()

    for replica in site.cluster.replicas:
        replica.kill()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read).result() == [{"text": str(number)} for number in range(5)]


@pytest.mark.parametrize("read", ["copy", "stream"])
def test_copy_and_stream_fail_over_too(site: Site, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has died since it was last used: nothing was delivered yet, so another one answers."""
    fill(site)
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT 1")
        stop_checking(monkeypatch)
        site.host("replica1").kill()
        if read == "stream":
            assert list(cursor.stream("SELECT count(*) FROM guestbook_entry")) == [(5,)]
        else:
            with cursor.copy("COPY (SELECT count(*) FROM guestbook_entry) TO STDOUT") as copy:
                assert list(copy.rows()) == [("5",)]
        assert current_decisions() == (("replica1", Reason.REPLICA, 1), ("replica2", Reason.FAILOVER, 1))


def test_lost_primary_is_asked_for_its_position_as_often_as_configured(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """PRIMARY_ATTEMPTS in all; then the writer is pinned."""
    pauses: list[float] = []
    monkeypatch.setattr(mixin, "time", SimpleNamespace(sleep=pauses.append, time=time.time))
    connections["default"].close()
    site.cluster.primary.stop()
    try:
        with routing_session(identity=("test", "writer")):
            mark_write()
    finally:
        site.cluster.primary.start()
    assert len(pauses) == 2
    assert runtime.get_runtime().load("default", [("test", "writer")])[0].pinned_until > now()


def test_debug_log_does_not_mask_the_error(site: Site) -> None:
    """While queries are logged, a lost primary raises what plain Django raises."""
    with CaptureQueriesContext(connections["default"]), pytest.raises(OperationalError), connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    connections["default"].close()


def test_statements_are_logged_where_they_ran(site: Site) -> None:
    """assertNumQueries and the debug toolbar count a statement on the alias that answered it."""
    captured = CaptureQueriesContext(connections["default"]), CaptureQueriesContext(connections["replica1"])
    with captured[0] as on_default, captured[1] as on_replica, routing_session():
        Entry.objects.using("replica1").count()
        Entry.objects.using("replica1").create(text="x")
    assert [len(on_replica), len(on_default)] == [1, 1]


def test_error_of_an_extension_takes_no_replica_out(site: Site, reported: list[str]) -> None:
    """XX000 is what extensions raise for bad input: the caller's own error."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'bad' USING ERRCODE = 'XX000'; END $$"
        )
        cursor.execute("CREATE OR REPLACE VIEW failing AS SELECT fail()")
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(), connections["replica1"].cursor() as cursor, pytest.raises(DatabaseError, match="bad"):
        cursor.execute("SELECT * FROM failing")
    assert reported == []


def test_position_is_taken_on_a_new_connection_if_the_old_one_died(site: Site) -> None:
    """The commit has returned, then the connection died: the writer is bound by a pointer, not only pinned for a while."""
    identity = ("test", "writer")
    with routing_session(identity=identity):
        Entry.objects.create(text="x")
        site.cluster.primary.ask(TERMINATE)
    (bound,) = runtime.get_runtime().load("default", [identity])
    assert bound.pointer is not None
    assert bound.pinned_until == 0.0


def test_every_host_down_with_queries_logged_is_an_operational_error(site: Site) -> None:
    """The query log must not hide what happened."""
    fill(site)
    with routing_session(), CaptureQueriesContext(connections["default"]), CaptureQueriesContext(connections["replica1"]):
        Entry.objects.using("replica1").count()
        for host in site.cluster.hosts:
            host.kill()
        connections["default"].close()
        with pytest.raises(OperationalError):
            Entry.objects.using("replica1").count()
