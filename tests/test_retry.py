"""The table of failures on real servers: each row provoked on a standby, and what may be run again on the primary."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, InternalError, OperationalError, ProgrammingError, connections, transaction

from django_pglb import current_decisions, routing_session, runtime, use_replicas
from django_pglb.backends import mixin
from django_pglb.core.decision import Reason
from django_pglb.core.retry import TABLE, Row, Verdict
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Entry

# A plain view, so that whoever reads the statement sees a read. It fails on a server in recovery, and counts nothing.
FAILING = """
    CREATE OR REPLACE FUNCTION fail_in_recovery(code text) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF pg_is_in_recovery() THEN RAISE EXCEPTION 'provoked' USING ERRCODE = code; END IF;
        RETURN 42;
    END $$
"""


@pytest.fixture
def reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are reported to the checker from now on."""
    aliases: list[str] = []
    monkeypatch.setattr(runtime.get_runtime().checker, "report_failure", lambda alias, why: aliases.append(alias))
    return aliases


def ask_primary(site: Site, statement: str) -> Any:
    with site.cluster.primary.connect(dbname="site") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def create_failing_view(site: Site, sqlstate: str) -> str:
    name = f"fails_{sqlstate.lower()}"
    with site.cluster.primary.connect(dbname="site") as connection:
        connection.execute(FAILING)
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT fail_in_recovery('{sqlstate}') AS answer")
    site.cluster.wait_until_replicas_caught_up()
    return name


@pytest.mark.parametrize("row", [row for row in TABLE if row.on_replica is not Verdict.RAISE], ids=lambda row: row.exception)
def test_every_row_is_answered_as_the_table_says(site: Site, reported: list[str], row: Row) -> None:
    """Both standbys fail with it: the primary answers in the end, and the table says who is asked and who is reported."""
    view = create_failing_view(site, row.sqlstate)
    since = {alias: site.log_end(alias) for alias in ("replica1", "replica2")}
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute(f"SELECT answer FROM {view}")
        assert cursor.fetchone() == (42,)
        reason = Reason.WRITE if row.on_replica is Verdict.WAS_WRITE else Reason.FAILOVER
        assert current_decisions() == (("default", reason, 1),)
    asked = [alias for alias, end in since.items() if any(view in text for text in site.statements(alias, end))]
    everybody = row.on_replica in {Verdict.HOST_OUT, Verdict.HOST_STAYS}
    assert asked == (["replica1", "replica2"] if everybody else ["replica1"])
    assert sorted(reported) == (["replica1", "replica2"] if row.on_replica is Verdict.HOST_OUT else [])


RUNNING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep')"
)
SLOW_READ = "SELECT count(*), (SELECT pg_sleep(3)) FROM guestbook_entry"


def test_recovery_conflict_is_answered_by_another_host(site: Site, reported: list[str]) -> None:
    """A real one: replay cancels a running read, which the next replica answers, and the host stays."""
    Entry.objects.bulk_create([Entry(text=str(number)) for number in range(100)])
    site.cluster.wait_until_replicas_caught_up()
    first, second = site.cluster.replicas
    first.alter_system("max_standby_streaming_delay", "0")
    second.pause_replay()

    def read() -> tuple[Any, Any]:
        try:
            with routing_session(), connections["replica1"].cursor() as cursor:
                cursor.execute(SLOW_READ)
                return cursor.fetchone(), current_decisions()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(read)
        wait_until(lambda: first.ask(RUNNING), timeout=30, what="the read to run on the first replica")
        ask_primary(site, "TRUNCATE guestbook_entry")
        assert answer.result() == ((100, ""), (("replica2", Reason.FAILOVER, 1),))
    assert first.ask("SELECT sum(confl_lock + confl_snapshot) FROM pg_stat_database_conflicts") >= 1
    assert reported == []


# --- Rights ---


@pytest.fixture
def reader(site: Site) -> Iterator[str]:
    """Both replicas are read by a role of their own, which may not read one table."""
    site.cluster.create_role("reader")
    with site.cluster.primary.connect(dbname="site") as connection:
        connection.execute("GRANT SELECT ON guestbook_author TO reader; REVOKE ALL ON guestbook_entry FROM reader")
    Entry.objects.create(text="not for everybody")
    site.cluster.wait_until_replicas_caught_up()
    wrappers = [connections[alias] for alias in ("replica1", "replica2")]
    for wrapper in wrappers:
        wrapper.close()
        wrapper.settings_dict["USER"] = "reader"
    yield "reader"
    for wrapper in wrappers:
        wrapper.close()
        wrapper.settings_dict["USER"] = "postgres"
    with site.cluster.primary.connect(dbname="site") as connection:
        connection.execute("DROP OWNED BY reader")


@pytest.mark.usefixtures("reader")
def test_what_the_role_of_a_replica_may_not_read_is_answered_by_the_primary(
    site: Site, reported: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No host is to blame, and who runs the site is told once for each replica."""
    for _ in range(3):
        with routing_session():
            assert Entry.objects.using("replica1").get().text == "not for everybody"
            assert current_decisions() == (("default", Reason.FAILOVER, 1),)
    assert reported == []
    told = [record.getMessage() for record in caplog.records if record.name == "django_pglb.routing"]
    assert len(told) == 1
    assert told[0].startswith("replica1 fails reads that the primary answers (SQLSTATE 42501)")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("allowed_stale", [False, True])
def test_rights_count_for_every_way_to_read(site: Site, reported: list[str], allowed_stale: bool) -> None:
    """Named cursors, rows that are streamed, and reads for which stale is fine."""
    with routing_session(), use_replicas() if allowed_stale else nullcontext():
        assert len(list(Entry.objects.iterator(chunk_size=2))) == 1
        with connections["replica1"].cursor() as cursor:
            assert len(list(cursor.stream("SELECT id FROM guestbook_entry"))) == 1
        assert {decision.alias for decision in current_decisions()} == {"default"}
    assert reported == []


def test_error_that_the_primary_shares_is_nobodys_lack_of_rights(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the statement is raised as it is, and nothing is told of the replica."""
    with routing_session(), connections["replica1"].cursor() as cursor, pytest.raises(ProgrammingError, match="nowhere"):
        cursor.execute("SELECT * FROM nowhere")
    assert not [record for record in caplog.records if record.name == "django_pglb.routing"]


@contextmanager
def idle_limit(site: Site, alias: str) -> Iterator[None]:
    """`alias` has a connection that the server has ended by now, because it was idle for too long."""
    wrapper: Any = connections[alias]
    wrapper.close()
    before = wrapper.settings_dict["OPTIONS"]
    wrapper.settings_dict["OPTIONS"] = {**before, "options": "-c idle_session_timeout=100"}
    wrapper.connect()
    wrapper.settings_dict["OPTIONS"] = before
    pid = wrapper.connection.info.backend_pid
    gone = f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"
    wait_until(lambda: site.host(alias).ask(gone), timeout=30, what="the server to end the idle connection")
    yield
    wrapper.close()


def test_read_on_a_connection_that_was_idle_too_long_is_answered(site: Site, reported: list[str]) -> None:
    """57P05: it was not run, and the host is well."""
    with idle_limit(site, "replica1"), routing_session():
        assert Entry.objects.using("replica1").count() == 0
        assert {decision.alias for decision in current_decisions()} <= {"replica1", "replica2"}
    assert reported == []


def test_write_on_a_connection_that_was_idle_too_long_is_run_again(site: Site, pauses: list[float]) -> None:
    """Nothing was run there."""
    with idle_limit(site, "default"), routing_session():
        Entry.objects.create(text="once")
        assert Entry.objects.count() == 1
    assert len(pauses) == 1


def test_write_does_not_leave_a_session_that_was_told_something(site: Site, pauses: list[float]) -> None:
    """What `SET` has said would be missing on a new connection."""
    with idle_limit(site, "default"), routing_session():
        connections["default"].pglb_carries_state = True
        with pytest.raises(OperationalError, match="idle-session"):
            Entry.objects.create(text="never")
    assert pauses == []
    assert Entry.objects.count() == 0


# --- On the primary ---


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts to reach the primary, which take no time here."""
    taken: list[float] = []
    monkeypatch.setattr(mixin, "time", SimpleNamespace(sleep=taken.append, time=time.time))
    return taken


def break_connection(site: Site) -> None:
    connections["default"].ensure_connection()
    pid = connections["default"].connection.info.backend_pid
    site.cluster.primary.ask("SELECT pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.parametrize("statement", ["SELECT count(*) FROM guestbook_entry", "INSERT INTO guestbook_author (name) VALUES ('x')"])
def test_statement_whose_connection_died_is_an_error_on_the_primary(site: Site, pauses: list[float], statement: str) -> None:
    """It may have run, and a text that looks like a read may write; whatever the old connection had been told is gone as well."""
    with routing_session(), connections["default"].cursor() as cursor:
        break_connection(site)
        with pytest.raises(OperationalError):
            cursor.execute(statement)
    connections["default"].close()
    assert pauses == []
    assert ask_primary(site, "SELECT count(*) FROM guestbook_author") == (0,)


def test_transaction_that_django_does_not_know_of_is_never_left(site: Site) -> None:
    """What came before the statement that failed would be lost without a word."""
    with connections["default"].cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO guestbook_author (name) VALUES ('first')")
        break_connection(site)
        with pytest.raises(OperationalError):
            cursor.execute("SELECT count(*) FROM guestbook_author")
    connections["default"].close()
    assert ask_primary(site, "SELECT count(*) FROM guestbook_author") == (0,)


CANNOT_CONNECT_NOW = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"


@contextmanager
def starting_pooler(site: Site, marker: bytes) -> Iterator[int]:
    """The port of a pooler whose server is starting when the first message with `marker` comes, and is there from then on."""
    has_refused = Event()
    opened: list[socket.socket] = []

    def shut_down(end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def relay(source: socket.socket, sink: socket.socket, client: socket.socket | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if client is not None and marker in data and not has_refused.is_set():
                    has_refused.set()
                    client.sendall(b"E" + struct.pack("!I", len(CANNOT_CONNECT_NOW) + 4) + CANNOT_CONNECT_NOW)
                    break
                sink.sendall(data)
        shut_down(source)
        shut_down(sink)

    with ExitStack() as closing, socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(8) as pool:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = closing.enter_context(server.accept()[0])
                    opened.append(client)
                    upstream = closing.enter_context(socket.create_connection((site.cluster.primary.host, site.cluster.primary.port)))
                    opened.append(upstream)
                    pool.submit(relay, client, upstream, client)
                    pool.submit(relay, upstream, client, None)

        accepting = Thread(target=accept)
        accepting.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            connections["default"].close()
            # Before they are closed, which does not wake who waits for them, and leaves the connection open for as long.
            for end in opened:
                shut_down(end)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_write_that_a_pooler_could_not_pass_on_is_run_again(site: Site, pauses: list[float], in_transaction: bool) -> None:
    """57P03 and the end of the connection: it has certainly not run. Inside a transaction it is an error all the same."""
    connection: Any = connections["default"]
    connection.close()
    before = connection.settings_dict["PORT"]

    def write() -> None:
        with connection.cursor() as cursor:
            if in_transaction:
                cursor.execute("BEGIN")
            cursor.execute("INSERT INTO guestbook_author (name) VALUES ('through the pooler')")

    with starting_pooler(site, b"through the pooler") as port:
        connection.settings_dict["PORT"] = port
        try:
            with pytest.raises(OperationalError) if in_transaction else nullcontext():
                write()
        finally:
            connection.close()
            connection.settings_dict["PORT"] = before
    assert ask_primary(site, "SELECT count(*) FROM guestbook_author") == (0 if in_transaction else 1,)
    assert len(pauses) == (0 if in_transaction else 1)


@pytest.fixture
def demoted(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`default` is connected to a server that is a standby by now; its address leads to the primary, as after a failover."""
    connection: Any = connections["default"]
    connection.close()
    connection.settings_dict["PORT"] = site.cluster.replicas[0].port
    # A new connection to a standby would be refused; this one was made when it was none.
    with monkeypatch.context() as patch:
        patch.setattr(mixin, "_is_standby", lambda connection: False)
        connection.connect()
    connection.settings_dict["PORT"] = site.cluster.primary.port
    yield connection
    connection.close()


def test_write_on_a_demoted_primary_is_run_on_the_new_one(site: Site, demoted: Any, pauses: list[float]) -> None:
    """The standby has certainly not run it: once, on the server that the address leads to now."""
    with routing_session(), connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO guestbook_author (name) VALUES ('x')")
        assert current_decisions() == (("default", Reason.WRITE, 1),)
    assert ask_primary(site, "SELECT count(*) FROM guestbook_author") == (1,)
    assert len(pauses) == 1


def test_transaction_on_a_demoted_primary_is_an_error_and_leaves_it(site: Site, demoted: Any) -> None:
    """Plain Django's error; whoever tries again reaches the new primary."""
    standby = site.cluster.replicas[0]

    def write() -> None:
        with transaction.atomic():
            Entry.objects.create(text="x")

    with pytest.raises(InternalError, match="read-only"):
        write()
    write()
    assert connections["default"].connection.info.port == site.cluster.primary.port != standby.port
    assert Entry.objects.count() == 1


def test_read_only_transaction_of_the_callers_own_is_the_callers_error(site: Site, pauses: list[float]) -> None:
    """The primary is one: nothing is tried again, and the connection stays."""
    with routing_session(), connections["default"].cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        connection = connections["default"].connection
        with pytest.raises(InternalError, match="read-only"):
            cursor.execute("INSERT INTO guestbook_author (name) VALUES ('x')")
        assert connections["default"].connection is connection
    connections["default"].close()
    assert pauses == []


def test_address_that_leads_to_a_standby_is_no_primary(site: Site, pauses: list[float]) -> None:
    """What it said would pass for the newest state there is: an error, after the attempts that a failover may need."""
    connection: Any = connections["default"]
    connection.close()
    connection.settings_dict["PORT"] = site.cluster.replicas[0].port
    try:
        with pytest.raises(OperationalError, match="'default' is a standby"):
            Entry.objects.count()
    finally:
        connection.settings_dict["PORT"] = site.cluster.primary.port
    assert len(pauses) == 2


def test_primary_may_be_one_of_several_hosts(site: Site) -> None:
    """As libpq finds it: `target_session_attrs` passes over the standbys."""
    connection: Any = connections["default"]
    connection.close()
    settings_dict, (standby, _) = connection.settings_dict, site.cluster.replicas
    before = {key: settings_dict[key] for key in ("HOST", "PORT", "OPTIONS")}
    settings_dict.update(
        HOST="127.0.0.1,127.0.0.1", PORT=f"{standby.port},{site.cluster.primary.port}", OPTIONS={"target_session_attrs": "read-write"}
    )
    try:
        with routing_session():
            Entry.objects.create(text="x")
            assert current_decisions() == (("default", Reason.WRITE, 1),)
        assert connection.connection.info.port == site.cluster.primary.port
    finally:
        connection.close()
        settings_dict.update(before)


@pytest.mark.parametrize("refusal", [DatabaseError])
def test_unknown_database_is_an_error_at_last(site: Site, pauses: list[float], refusal: type[Exception]) -> None:
    """Plain Django's, after the attempts."""
    connection: Any = connections["default"]
    connection.close()
    connection.settings_dict["NAME"] = "nowhere"
    try:
        with pytest.raises(refusal, match="does not exist"):
            Entry.objects.count()
    finally:
        connection.settings_dict["NAME"] = "site"
    assert len(pauses) == 2
