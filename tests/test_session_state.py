"""What a unit of work has told its database session, no replica knows: value, host and reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, InternalError, OperationalError, close_old_connections, connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path

from django_pglb import (
    connection_for_read,
    current_decisions,
    export_pointer,
    ignore_writes,
    replica_reads,
    routing_session,
    use_replicas,
)
from django_pglb.core.decision import Reason
from django_pglb.runtime import get_runtime

from .fix_site import NAME, Served, Site
from .guestbook.models import Entry

REPLICAS = {"replica1", "replica2"}
ROWS = "SELECT tenant FROM tenants_row ORDER BY tenant"
SCHEMA = """
DROP TABLE IF EXISTS tenants_row;
DROP SCHEMA IF EXISTS tenant_a CASCADE;
CREATE ROLE tenant_a;
CREATE TABLE tenants_row (tenant text);
INSERT INTO tenants_row VALUES ('a'), ('b'), ('c');
ALTER TABLE tenants_row ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants_row USING (tenant = 'a');
GRANT SELECT ON tenants_row TO tenant_a;
CREATE SCHEMA tenant_a;
GRANT USAGE ON SCHEMA tenant_a TO tenant_a;
CREATE TABLE tenant_a.guestbook_entry (LIKE guestbook_entry INCLUDING ALL);
INSERT INTO tenant_a.guestbook_entry (text, created) VALUES ('of tenant a', now());
GRANT SELECT ON ALL TABLES IN SCHEMA public, tenant_a TO tenant_a;
"""


@pytest.fixture
def tenants(site: Site) -> Iterator[Site]:
    """The site with a table with row-level security, a role that sees one of three rows, and a schema of that tenant."""
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute(SCHEMA)
    site.wait_until_seen()
    yield site
    connections.close_all()
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute("DROP TABLE tenants_row; DROP SCHEMA tenant_a CASCADE; DROP OWNED BY tenant_a; DROP ROLE tenant_a")


def rows() -> list[str]:
    """Raw SQL that may go to a replica."""
    with connection_for_read().cursor() as cursor:
        cursor.execute(ROWS)
        return [tenant for (tenant,) in cursor.fetchall()]


def run(sql: Any, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def reads() -> set[tuple[str, Reason]]:
    return {(decision.alias, decision.reason) for decision in current_decisions() if decision.reason is not Reason.WRITE}


STAYS = {("default", Reason.SESSION_STATE)}


# --- A stream ---


def stream_of_role(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        run("SET ROLE tenant_a")
        while True:
            yield f"{rows()} {sorted(reads())}"

    return StreamingHttpResponse(chunks())


def stream_of_path(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        run("SET search_path = tenant_a, public")
        while True:
            yield f"{[entry.text for entry in Entry.objects.all()]} {sorted(reads())}"

    return StreamingHttpResponse(chunks())


def in_request(request: HttpRequest) -> HttpResponse:
    run("SET ROLE tenant_a")
    with use_replicas():
        stale = rows()
    with ignore_writes():
        run("SELECT set_config('role', 'tenant_a', false)")
        ignored = rows()
    return JsonResponse({"stale": stale, "ignored": ignored, "plain": rows()})


def by_nobody(request: HttpRequest) -> HttpResponse:
    with use_replicas():
        return JsonResponse({"rows": rows()})


urlpatterns = [
    path("stream_of_role/", stream_of_role),
    path("stream_of_path/", stream_of_path),
    path("in_request/", in_request),
    path("by_nobody/", by_nobody),
    path("broken_stream/", lambda request: broken_stream(request)),
]


@pytest.mark.parametrize(
    ("page", "expected"), [("stream_of_role", "['a']"), ("stream_of_path", "['of tenant a']")], ids=["role", "search_path"]
)
def test_stream_stays_in_the_session_that_it_has_changed(tenants: Site, settings: Any, page: str, expected: str) -> None:
    """However often it is saved and looks again, each chunk shows what the role and the path show."""
    settings.ROOT_URLCONF = __name__
    response = Client().get(f"/{page}/", headers={"Authorization": "Token one"})
    chunks = iter(response.streaming_content)
    interval = get_runtime().config.clusters["default"].check_interval
    for _ in range(4):
        assert next(chunks).decode() == f"{expected} {sorted(STAYS)}"
        # Time is what this is about: the unit of work asks anew after each interval.
        time.sleep(1.5 * interval)
    response.close()


def test_request_stays_whatever_is_asked_for(tenants: Site, settings: Any) -> None:
    """`use_replicas()` and `ignore_writes()` do not lead out of the session."""
    settings.ROOT_URLCONF = __name__
    response = Client().get("/in_request/")
    assert response.json() == {"stale": ["a"], "ignored": ["a"], "plain": ["a"]}
    assert Served(response).aliases == {"default"}
    assert Served(response).reasons == {Reason.WRITE, Reason.SESSION_STATE}


# --- Every way to change it ---


def by_executemany() -> None:
    with connection.cursor() as cursor:
        cursor.executemany("SELECT set_config(%s, %s, false)", [("app.tenant", "a")])


def by_callproc() -> None:
    with connection.cursor() as cursor:
        cursor.callproc("set_config", ["app.tenant", "a", False])


def by_stream() -> None:
    with connection.cursor() as cursor:
        list(cursor.stream("SELECT set_config('app.tenant', 'a', false)"))


def by_copy() -> None:
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT set_config('app.tenant', 'a', false)) TO STDOUT") as copy:
        list(copy)


def on_replicas_alias() -> None:
    with connections["replica1"].cursor() as cursor:
        cursor.execute("SET ROLE tenant_a")


def in_committed_transaction() -> None:
    with transaction.atomic():
        run("SET ROLE tenant_a")


CHANGES: dict[str, Callable[[], None]] = {
    "SET": lambda: run("SET app.tenant = 'a'"),
    "SET among others": lambda: run("SELECT 1; SET ROLE tenant_a; SELECT 2"),
    "bytes": lambda: run(b"SET ROLE tenant_a"),
    "composed": lambda: run(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier("tenant_a"))),
    "set_config": lambda: run("SELECT set_config('app.tenant', %s, %s)", ["a", False]),
    "executemany": by_executemany,
    "callproc": by_callproc,
    "stream": by_stream,
    "copy": by_copy,
    "replica's alias": on_replicas_alias,
    "committed": in_committed_transaction,
    "RESET": lambda: run("RESET ALL"),
    "DISCARD": lambda: run("DISCARD ALL"),
    "LISTEN": lambda: run("LISTEN news"),
    "temporary table": lambda: run("CREATE TEMP TABLE mine AS SELECT 1 AS one"),
    "INTO TEMP": lambda: run("SELECT 1 AS one INTO TEMP TABLE mine"),
    "lock": lambda: run("SELECT pg_advisory_lock(1)"),
    "tried lock": lambda: run("SELECT pg_try_advisory_lock(%s)", [1]),
    "PREPARE": lambda: run("PREPARE mine AS SELECT 1"),
    "held cursor": lambda: run("DECLARE mine CURSOR WITH HOLD FOR SELECT 1"),
    "transaction": lambda: run("BEGIN"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_unit_stays_after_every_kind_of_change(tenants: Site, change: Callable[[], None]) -> None:
    """Also one that has written nothing that counts, and also the unit around it."""
    with replica_reads(), routing_session():
        assert Entry.objects.count() == 0
        assert reads() == {(alias, Reason.REPLICA) for alias, _ in reads()}
        with ignore_writes(), routing_session():
            change()
            Entry.objects.count()
            assert reads() == STAYS
        with use_replicas():
            Entry.objects.count()
            Entry.objects.using("replica1").count()
            list(Entry.objects.iterator())
        assert {reason for alias, reason in reads() if alias == "default"} == {Reason.SESSION_STATE}
        assert sum(count for alias, _, count in current_decisions() if alias in REPLICAS) == 1


HARMLESS: dict[str, Callable[[], None]] = {
    "SET LOCAL": lambda: run("BEGIN; SET LOCAL ROLE tenant_a; COMMIT"),
    "set_config": lambda: run("SELECT set_config('app.tenant', 'a', true)"),
    "transaction's lock": lambda: run("SELECT pg_advisory_xact_lock(1)"),
    "dropped table": lambda: run("CREATE TEMP TABLE mine (a int) ON COMMIT DROP"),
    "constraints": lambda: run("SET CONSTRAINTS ALL IMMEDIATE"),
    "permanent table": lambda: run("DO $$ BEGIN UPDATE guestbook_entry SET text = 'a'; END $$"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_ends_with_its_transaction_needs_nothing(tenants: Site, change: Callable[[], None]) -> None:
    """The next read is on a replica."""
    with routing_session(), ignore_writes():
        change()
        assert rows() == ["a", "b", "c"]
        assert {reason for _, reason in reads()} == {Reason.REPLICA}


def test_own_temporary_table_is_read_where_it_is(tenants: Site) -> None:
    """By raw SQL that asks for a replica, too."""
    with routing_session(), use_replicas():
        run("CREATE TEMP TABLE mine AS SELECT 1 AS one")
        with connection_for_read().cursor() as cursor:
            cursor.execute("SELECT one FROM mine")
            assert cursor.fetchall() == [(1,)]
        assert reads() == STAYS


# --- What an earlier unit of work has left ---


def test_later_unit_of_work_stays_while_the_connection_carries_it(tenants: Site) -> None:
    """A persistent connection has the role of an earlier request; a new one has nothing."""
    with routing_session():
        run("SET ROLE tenant_a")
    for _ in range(2):
        with routing_session(), use_replicas():
            assert rows() == ["a"]
            assert reads() == STAYS
    connection.close()
    with routing_session(), use_replicas():
        assert rows() == ["a", "b", "c"]
        assert {reason for _, reason in reads()} == {Reason.STALE_ALLOWED}


@pytest.mark.parametrize("reset", ["DISCARD ALL", "RESET ROLE"])
def test_later_unit_of_work_is_free_once_it_is_certainly_gone(tenants: Site, reset: str) -> None:
    """The unit that takes it away stays; the next one does not."""
    with routing_session():
        run("SET ROLE tenant_a")
    with routing_session(), use_replicas():
        run(reset)
        assert rows() == ["a", "b", "c"]
        assert reads() == STAYS
    with routing_session(), use_replicas():
        assert rows() == ["a", "b", "c"]
        assert {reason for _, reason in reads()} == {Reason.STALE_ALLOWED}


def roll_back() -> None:
    with transaction.atomic():
        run("RESET ROLE")
        transaction.set_rollback(True)


def roll_back_to_savepoint() -> None:
    with transaction.atomic(), transaction.atomic():
        run("RESET ROLE")
        transaction.set_rollback(True)


def fail() -> None:
    with pytest.raises(InternalError), transaction.atomic():
        run("DISCARD ALL")


def roll_back_by_statements() -> None:
    for sql in ("BEGIN", "RESET ROLE", "ROLLBACK"):
        run(sql)


def roll_back_by_a_broken_commit() -> None:
    run("BEGIN; RESET ROLE")
    with pytest.raises(DatabaseError):
        run("SELECT 1/0")
    run("COMMIT")


VAIN: dict[str, Callable[[], None]] = {
    "rolled back": roll_back,
    "to a savepoint": roll_back_to_savepoint,
    "refused": fail,
    "by statements": roll_back_by_statements,
    "in one text": lambda: run("BEGIN; RESET ROLE; ROLLBACK"),
    "commit of what is broken": roll_back_by_a_broken_commit,
}


@pytest.mark.parametrize("reset", VAIN.values(), ids=VAIN.keys())
def test_reset_that_did_not_last_frees_nobody(tenants: Site, reset: Callable[[], None]) -> None:
    """The role is still there, and so are the later units of work."""
    with routing_session():
        run("SET ROLE tenant_a")
    with routing_session():
        reset()
    with routing_session(), use_replicas():
        assert rows() == ["a"]
        assert reads() == STAYS


def test_reset_in_a_transaction_that_is_committed_frees_later_ones(tenants: Site) -> None:
    """With it, it is certain."""
    with routing_session():
        run("SET ROLE tenant_a")
    with routing_session(), transaction.atomic():
        run("RESET ROLE")
    with routing_session(), use_replicas():
        assert rows() == ["a", "b", "c"]
        assert {reason for _, reason in reads()} == {Reason.STALE_ALLOWED}


@pytest.mark.parametrize(("sql", "lasts"), [("SET ROLE tenant_a", False), ("LISTEN news", False), ("PREPARE mine AS SELECT 1", True)])
def test_rollback_takes_away_what_it_can(tenants: Site, sql: str, lasts: bool) -> None:
    """A persistent connection is not marked for good by what is gone."""
    with routing_session(), transaction.atomic():
        run(sql)
        transaction.set_rollback(True)
    with routing_session(), use_replicas():
        assert rows() == ["a", "b", "c"]
        assert {reason for _, reason in reads()} == {Reason.SESSION_STATE if lasts else Reason.STALE_ALLOWED}


# --- A session that is lost ---


def end_session(site: Site) -> None:
    """Let the server end the conversation on the primary's connection."""
    connection.ensure_connection()
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.connection.info.backend_pid])


def test_unit_does_not_go_on_in_another_session(tenants: Site) -> None:
    """Its position is asked for, in vain; then it gets the error that Django gives, and what it wrote binds all the same."""
    with routing_session():
        run("SET ROLE tenant_a")
        end_session(tenants)
        assert export_pointer()
        for _ in range(2):
            with pytest.raises(OperationalError):
                rows()
            with pytest.raises(OperationalError):
                run("SELECT 1")
            export_pointer()


def test_unit_does_not_go_on_in_another_session_when_the_primary_was_silent(tenants: Site) -> None:
    """Its position is not waited for, which costs the connection."""
    primary = tenants.cluster.primary
    with routing_session():
        run("SET ROLE tenant_a")
        primary.freeze()
        try:
            assert export_pointer()
        finally:
            primary.thaw()
        with pytest.raises(OperationalError):
            rows()


def broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        run("SET ROLE tenant_a")
        yield f"{rows()}"
        run("SET ROLE tenant_a")
        yield f"{rows()}"
        yield f"{rows()}"

    return StreamingHttpResponse(chunks())


def test_stream_does_not_go_on_in_another_session(tenants: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks while a chunk is being saved."""
    settings.ROOT_URLCONF = __name__
    chunks = iter(Client(raise_request_exception=True).get("/broken_stream/", headers={"Authorization": "Token one"}).streaming_content)
    assert next(chunks) == b"['a']"
    wrapper: Any = type(connections["default"])
    capture = wrapper.pglb_capture_pointer

    def end_and_capture(self: Any, within_seconds: float) -> Any:
        end_session(tenants)
        return capture(self, within_seconds)

    monkeypatch.setattr(wrapper, "pglb_capture_pointer", end_and_capture)
    assert next(chunks) == b"['a']"
    with pytest.raises(OperationalError):
        next(chunks)
    monkeypatch.undo()
    # As Django does at the end of a request; its test client does not.
    close_old_connections()
    assert Client().get("/by_nobody/").json() == {"rows": ["a", "b", "c"]}


def test_locks_of_many_are_held_until_all_are_released(tenants: Site) -> None:
    """One call that releases one of them is not enough."""
    with routing_session():
        with connection.cursor() as cursor:
            cursor.executemany("SELECT pg_advisory_lock(%s)", [(1,), (2,)])
        run("SELECT pg_advisory_unlock(1)")
    with routing_session(), use_replicas():
        rows()
        assert reads() == STAYS
        run("SELECT pg_advisory_unlock_all()")
    with routing_session(), use_replicas():
        rows()
        assert {reason for _, reason in reads()} == {Reason.STALE_ALLOWED}


def test_page_whose_reads_are_placed_already_notices(tenants: Site) -> None:
    """What another unit of work does on the same connection in between, as a stream that waits for its next chunk."""
    with routing_session():
        for _ in range(3):
            Entry.objects.count()
        assert {reason for _, reason in reads()} == {Reason.REPLICA}
        with routing_session():
            run("SET ROLE tenant_a")
        assert rows() == ["a"]
        assert ("default", Reason.SESSION_STATE) in reads()


def test_transaction_by_a_replicas_alias_is_the_primarys(tenants: Site) -> None:
    """Also inside `use_replicas()`, where it would be the replica's, which has not been told."""
    with routing_session(), use_replicas():
        run("SET ROLE tenant_a")
        with transaction.atomic(using="replica1"):
            assert [entry.text for entry in Entry.objects.using("replica1")] == ["of tenant a"]
            assert connection.in_atomic_block


def test_transaction_of_a_replicas_own_is_read_elsewhere(tenants: Site) -> None:
    """Once the primary's session has been told what the replica's has not."""
    with routing_session(), use_replicas(), transaction.atomic(using="replica1"):
        run("SET ROLE tenant_a")
        assert [entry.text for entry in Entry.objects.using("replica1")] == ["of tenant a"]
        assert ("default", Reason.SESSION_STATE) in reads()


@pytest.fixture
def pooled(tenants: Site, settings: Any) -> Iterator[Site]:
    """The primary's connections come from a pool of one."""
    connections.close_all()
    options = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {**options, "pool": {"min_size": 1, "max_size": 1}}
    yield tenants
    connections.close_all()
    connection.close_pool()
    connection.settings_dict["OPTIONS"] = options


def test_pool_hands_on_what_a_session_carries(pooled: Site) -> None:
    """Whoever gets the connection next reads where it is, as long as it has it; it knows of it once it has it."""
    with routing_session():
        run("SET ROLE tenant_a")
    connection.close()
    with routing_session(), use_replicas():
        run("SELECT 1")
        assert rows() == ["a"]
        assert reads() == STAYS
        run("DISCARD ALL")
    connection.close()
    with routing_session(), use_replicas():
        run("SELECT 1")
        assert rows() == ["a", "b", "c"]
        assert {reason for alias, reason in reads() if alias in REPLICAS} == {Reason.STALE_ALLOWED}


def test_what_django_sets_while_connecting_is_nobodys(tenants: Site, settings: Any) -> None:
    """A role to assume, a time zone, and what a handler of `connection_created` says."""
    from django.db.backends.signals import connection_created

    def told(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET app.tenant = 'a'")

    connection.close()
    options = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {**options, "assume_role": "postgres"}
    connection_created.connect(told)
    try:
        with routing_session(), use_replicas():
            connection.ensure_connection()
            assert len(rows()) == 3
            assert {reason for _, reason in reads()} == {Reason.STALE_ALLOWED}
    finally:
        connection_created.disconnect(told)
        connection.close()
        connection.settings_dict["OPTIONS"] = options
