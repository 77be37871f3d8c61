"""The read itself proves that a replica has reached the pointer. A topology that believes wrongly must not matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

import psycopg
import pytest
from django.db import InterfaceError, ProgrammingError, connections
from django.db.backends.utils import CursorWrapper

from django_pglb import current_decisions, placement, routing_session, runtime, use_replicas
from django_pglb.backends import position
from django_pglb.core import policy
from django_pglb.core.decision import Reason
from django_pglb.core.lsn import normalise
from django_pglb.core.topology import Host, HostState, Topology
from django_pglb.waiting import wait_for_replica

from .fix_site import Site
from .guestbook.models import Entry

WRITER = ("test", "writer")
REPLICAS = ("replica1", "replica2")


class BelievingChecker:
    """A checker that believes both replicas to be online and past everything. Wrong, whenever they are not."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.topologies = {"default": self._believed()}

    def topology(self, primary: str) -> Topology:
        return self.topologies[primary]

    def trusted_until(self, primary: str, topology: Topology) -> float:
        return inf

    def _believed(self) -> Topology:
        hosts = tuple(
            Host(alias=alias, state=HostState.OFFLINE if alias in self.reported else HostState.ONLINE, replay_lsn=2**63)
            for alias in REPLICAS
        )
        return Topology(primary=Host(alias="default", is_primary=True, state=HostState.ONLINE, timeline=1), replicas=hosts)

    def ensure_running(self) -> None: ...

    def wait_until_known(self, timeout: float, primary: str) -> bool:
        return True

    def close(self) -> None: ...

    def report_failure(self, alias: str, why: str) -> None:
        self.reported.append(alias)
        self.topologies = {"default": self._believed()}


@pytest.fixture
def believing(site: Site) -> Iterator[BelievingChecker]:
    """The runtime of this process, with a topology that believes everything."""
    checker = BelievingChecker()
    process = runtime.get_runtime()
    process.checker.stop()
    process.checker = checker  # type: ignore[assignment]
    yield checker
    runtime.reset()


def write(text: str) -> None:
    with routing_session(identity=WRITER):
        Entry.objects.create(text=text)


@contextmanager
def paused(site: Site) -> Iterator[None]:
    for replica in site.cluster.replicas:
        replica.pause_replay()
    yield


def messages_about(site: Site, alias: str, since: int, word: str = "guestbook_entry") -> list[str]:
    return [text for text in site.statements(alias, since) if word in text]


def test_bound_read_and_its_proof_are_one_message(site: Site) -> None:
    """The server sees position check and query in one message, the next read of the unit alone, and the primary sees nothing."""
    write("here")
    site.wait_until_seen()
    with routing_session(identity=WRITER):
        assert Entry.objects.count() == 1
        (decision,) = current_decisions()
        alias = decision.alias
        assert (decision.reason, decision.count) == (Reason.REPLICA, 1)
    marks = {name: site.log_end(name) for name in ("default", *REPLICAS)}
    with routing_session(identity=WRITER):
        assert Entry.objects.get().text == "here"
        assert Entry.objects.count() == 1
        (decision,) = current_decisions()
        alias = decision.alias
    first, second = messages_about(site, alias, marks[alias])
    assert "pg_last_wal_replay_lsn" in first
    assert "guestbook_entry" in first
    assert "pg_last_wal_replay_lsn" not in second
    assert site.statements("default", marks["default"]) == []


def test_unbound_read_carries_nothing(site: Site) -> None:
    """Who wrote nothing asks for no position."""
    with routing_session(identity=("test", "stranger")):
        Entry.objects.count()
        (decision,) = current_decisions()
        mark = site.log_end(decision.alias)
        Entry.objects.count()
    (message,) = site.statements(decision.alias, mark)
    assert "pg_last_wal_replay_lsn" not in message


def test_replica_that_is_believed_and_behind_never_answers(site: Site, believing: BelievingChecker) -> None:
    """Both replicas are asked, both answers are thrown away, and the primary's is returned (behind)."""
    with paused(site):
        write("new")
        marks = {alias: site.log_end(alias) for alias in REPLICAS}
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.BEHIND)]
        assert [len(messages_about(site, alias, marks[alias])) for alias in REPLICAS] == [1, 1]


def test_not_every_replica_is_asked_in_vain(site: Site, believing: BelievingChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of one, one of the two is asked, its answer is thrown away, and the primary's is returned (behind)."""
    monkeypatch.setattr(policy, "MAX_ASKED_IN_VAIN", 1)
    with paused(site):
        write("new")
        marks = {alias: site.log_end(alias) for alias in REPLICAS}
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert current_decisions() == (("default", Reason.BEHIND, 1),)
        assert sorted(len(messages_about(site, alias, marks[alias])) for alias in REPLICAS) == [0, 1]


def test_every_replica_is_asked_if_the_primary_cannot_be_reached(
    site: Site, believing: BelievingChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of one, the one that was asked first is behind, the primary is gone, and the other one has it."""
    monkeypatch.setattr(policy, "MAX_ASKED_IN_VAIN", 1)
    site.cluster.replicas[0].pause_replay()
    write("new")
    site.cluster.replicas[1].wait_until_caught_up()
    site.cluster.primary.kill()
    connections.close_all()
    try:
        # Who is asked first once the primary is given up is left to chance.
        for _ in range(6):
            with routing_session(identity=WRITER):
                assert Entry.objects.using("replica1").get().text == "new"
                (decision,) = current_decisions()
                assert (decision.alias, decision.count) == ("replica2", 1)
                assert decision.reason in {Reason.FAILOVER, Reason.REPLICA}
    finally:
        site.cluster.primary.start()


def test_next_replica_answers_if_it_has_reached_the_pointer(site: Site, believing: BelievingChecker) -> None:
    """Only one replica is behind: whichever is asked first, the other one answers."""
    site.cluster.replicas[0].pause_replay()
    write("new")
    site.cluster.replicas[1].wait_until_caught_up()
    for _ in range(6):
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert [(d.alias, d.reason) for d in current_decisions()] == [("replica2", Reason.REPLICA)]


def test_replica_swapped_behind_the_same_port_never_answers(site: Site) -> None:
    """A connection that has proved its position is gone, and what listens there now is older: the proof is asked for again."""
    write("one")
    site.wait_until_seen()
    with routing_session(identity=WRITER):
        assert Entry.objects.using("replica1").count() == 1
        assert current_decisions() == (("replica1", Reason.REPLICA, 1),)
    replica = site.cluster.replicas[0]
    site.cluster.replicas[1].kill()
    # Stopped before the write, started with replay held back: the server behind the port has not seen it.
    replica.delay_replay(60)
    replica.restart("immediate")
    write("two")
    believing = BelievingChecker()
    believing.reported.append("replica2")
    runtime.get_runtime().checker.stop()
    runtime.get_runtime().checker = believing  # type: ignore[assignment]
    mark = site.log_end("replica1")
    with routing_session(identity=WRITER):
        assert Entry.objects.count() == 2
        assert [(d.alias, d.reason) for d in current_decisions()][-1][0] == "default"
    assert believing.reported.count("replica1") <= 1
    assert len(messages_about(site, "replica1", mark)) <= 1
    runtime.reset()


READS: list[Callable[[], int]] = [
    lambda: len(list(Entry.objects.all().iterator(chunk_size=2))),
    lambda: len(Entry.objects.raw("SELECT * FROM guestbook_entry")),
    lambda: Entry.objects.filter(text__startswith="n%").count() + Entry.objects.count(),
]


@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_is_proved(site: Site, believing: BelievingChecker, read: Callable[[], int]) -> None:
    """Server-side cursors, raw querysets and parameters with percent signs: never the replica's old answer."""
    with paused(site):
        write("new")
        with routing_session(identity=WRITER):
            assert read() == 1
            assert {d.alias for d in current_decisions()} == {"default"}


@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_works_on_a_replica_that_is_there(site: Site, read: Callable[[], int]) -> None:
    """The same on replicas that have caught up, where they are answered."""
    write("new")
    site.wait_until_seen()
    with routing_session(identity=WRITER):
        assert read() == 1
        assert {d.reason for d in current_decisions()} == {Reason.REPLICA}


@pytest.fixture(params=["isolation_level", "server default", "server_side_binding"])
def unshared_message(request: Any, site: Site) -> Iterator[None]:
    """Connections on which proof and read cannot share a message."""
    options: dict[str, Any] = {
        "isolation_level": {"isolation_level": psycopg.IsolationLevel.REPEATABLE_READ},
        "server default": {"options": "-c default_transaction_isolation=repeatable\\ read"},
        "server_side_binding": {"server_side_binding": True},
    }[request.param]
    connections.close_all()
    for alias in REPLICAS:
        connections[alias].settings_dict["OPTIONS"] = options
    yield
    connections.close_all()
    for alias in REPLICAS:
        connections[alias].settings_dict["OPTIONS"] = {}


@pytest.mark.usefixtures("unshared_message")
def test_proof_is_a_statement_of_its_own_where_messages_cannot_be_shared(site: Site) -> None:
    """On replicas that are there the read is answered, whatever the isolation level and the binding."""
    write("new")
    site.wait_until_seen()
    for _ in range(2):
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert {d.reason for d in current_decisions()} == {Reason.REPLICA}


@pytest.mark.usefixtures("unshared_message")
def test_separate_proof_refuses_a_replica_that_is_behind(site: Site, believing: BelievingChecker) -> None:
    """The same connections, to replicas that are behind: the primary answers."""
    with paused(site):
        write("new")
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert {(d.alias, d.reason) for d in current_decisions()} == {("default", Reason.BEHIND)}


def test_error_beside_a_failed_proof_is_not_the_callers(site: Site, believing: BelievingChecker) -> None:
    """A query that fails on old data is answered by the host that has the new: the proof is asked for before the error is believed."""
    with paused(site):
        write("1")
        with routing_session(identity=WRITER), connections["replica1"].cursor() as cursor:
            # On the replica the table is empty: NULL, hence 1/0. On the primary 1/1.
            cursor.execute("SELECT 1 / coalesce((SELECT text::int FROM guestbook_entry), 0)")
            assert cursor.fetchone() == (1,)
            assert {(d.alias, d.reason) for d in current_decisions()} == {("default", Reason.BEHIND)}


def test_callers_own_error_is_raised(site: Site) -> None:
    """A division by zero is one on every host: raised as plain Django would."""
    write("0")
    site.wait_until_seen()
    with routing_session(identity=WRITER), connections["replica1"].cursor() as cursor, pytest.raises(Exception, match="division by zero"):
        cursor.execute("SELECT 1 / text::int FROM guestbook_entry")


def test_stale_reads_carry_no_proof(site: Site, believing: BelievingChecker) -> None:
    """Inside use_replicas() a replica that is behind answers."""
    with paused(site):
        write("new")
        with routing_session(identity=WRITER), use_replicas():
            assert Entry.objects.count() == 0
            assert {d.reason for d in current_decisions()} == {Reason.STALE_ALLOWED}


def raw_position(cursor: Any) -> int:
    cursor.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    return int(cursor.fetchone()[0])


def commit_until_behind_a_page_header() -> int:
    """Commit until the raw insert position is 24 bytes into a page, which one commit in about a thousand does. Return it."""
    with connections["default"].cursor() as cursor:
        for _ in range(20_000):
            cursor.execute("INSERT INTO guestbook_author (name) VALUES ('x')")
            if (raw := raw_position(cursor)) % 8192 == 24:
                return raw
    raise AssertionError("no commit ended on the end of a page")


def switch_segment() -> int:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_switch_wal()")
        return raw_position(cursor)


class IdleRead(NamedTuple):
    """A read after a write that ended behind a header, while nobody else wrote."""

    raw: int
    reasons: set[Reason]
    replayed: list[int]


def read_on_idle_primary(site: Site, write: Callable[[], int]) -> IdleRead:
    """Write, wait until the replicas have it, and read. Again, if the server wrote something of its own accord meanwhile."""
    for _ in range(20):
        with routing_session(identity=WRITER):
            raw = write()
        site.wait_until_seen(normalise(raw))
        with routing_session(identity=WRITER):
            Entry.objects.count()
            reasons = {decision.reason for decision in current_decisions()}
        replayed = [replica.replay_lsn for replica in site.cluster.replicas]
        with connections["default"].cursor() as cursor:
            if raw_position(cursor) == raw:
                return IdleRead(raw, reasons, replayed)
    raise AssertionError("the primary was never idle")


@pytest.mark.parametrize("write", [commit_until_behind_a_page_header, switch_segment])
def test_pointer_behind_a_header_is_reached_on_an_idle_primary(site: Site, write: Callable[[], int]) -> None:
    """The position is rounded down to the page's start, so a replica serves the next read; it has not replayed the raw one."""
    read = read_on_idle_primary(site, write)
    assert read.reasons == {Reason.REPLICA}
    assert all(normalise(read.raw) <= lsn < read.raw for lsn in read.replayed)


@pytest.mark.parametrize("write", [commit_until_behind_a_page_header, switch_segment])
def test_raw_position_behind_a_header_would_keep_the_reader_on_the_primary(
    site: Site, write: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would see if positions were taken as PostgreSQL reports them."""
    monkeypatch.setattr(position, "normalise", lambda lsn, **_: lsn)
    assert read_on_idle_primary(site, write).reasons == {Reason.BEHIND}


def test_reader_waits_for_a_replica_if_the_site_wants_that(site: Site, settings: Any) -> None:
    """Both replicas are 0.3 s late and WAIT_SECONDS allows it: a replica answers, and its answer has the write."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "WAIT_SECONDS": 30}}
    site.wait_until_online()
    for replica in site.cluster.replicas:
        replica.delay_replay(0.3)
    write("new")
    with routing_session(identity=WRITER):
        assert Entry.objects.get().text == "new"
        Entry.objects.count()
        assert {d.reason for d in current_decisions()} == {Reason.REPLICA}


def test_waiting_ends(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay is paused: after WAIT_SECONDS the primary answers, and the unit does not wait again."""
    waits = []

    def waiting(*arguments: Any) -> bool:
        waits.append(1)
        return wait_for_replica(*arguments)

    monkeypatch.setattr(placement, "wait_for_replica", waiting)
    settings.PGLB = {"default": {**settings.PGLB["default"], "WAIT_SECONDS": 0.2}}
    site.wait_until_online()
    with paused(site):
        write("new")
        with routing_session(identity=WRITER):
            started = time.monotonic()
            assert Entry.objects.get().text == "new"
            Entry.objects.count()
            assert time.monotonic() - started > 0.1
            assert {d.reason for d in current_decisions()} == {Reason.BEHIND}
    assert waits == [1]


def test_proved_cursor_behaves_as_any(site: Site) -> None:
    """execute() returns the cursor, and description, rowcount and keyword arguments of fetches are those of the read."""
    write("a")
    write("b")
    site.wait_until_seen()
    with routing_session(identity=WRITER), connections["replica1"].cursor() as cursor:
        assert cursor.execute("SELECT text FROM guestbook_entry ORDER BY text").fetchone() == ("a",)
        assert [column.name for column in cursor.description] == ["text"]
        assert cursor.rowcount == 2
        assert cursor.fetchmany(size=5) == [("b",)]
        assert {d.reason for d in current_decisions()} == {Reason.REPLICA}
    with pytest.raises(InterfaceError, match="closed"):
        cursor.execute("SELECT 1")


def test_several_statements_in_one_text_are_proved_together(site: Site) -> None:
    """The results of the caller's statements follow each other as without a proof."""
    write("a")
    site.wait_until_seen()
    with routing_session(identity=WRITER), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT 1; SELECT text FROM guestbook_entry")
        assert cursor.fetchall() == [(1,)]
        assert cursor.nextset()
        assert cursor.fetchall() == [("a",)]


COMMENTS = ("-- nothing", b"/* nothing */ ;", psycopg.sql.SQL("-- {}").format(psycopg.sql.SQL("nothing")))


def shown_by(cursor: Any, statement: Any) -> tuple[object, ...]:
    """What a cursor shows of a statement that has no result."""
    cursor.execute(statement)
    try:
        rows = cursor.fetchall()
    except ProgrammingError as error:
        rows = [str(error)]
    return cursor.description, cursor.rowcount, rows, cursor.nextset()


@pytest.mark.parametrize("consistency", ["read_your_writes", "monotonic"])
@pytest.mark.parametrize("alias", ["default", "replica1"])
@pytest.mark.parametrize("statement", COMMENTS, ids=["text", "bytes", "composed"])
def test_statement_of_comments_only_shows_what_django_shows(
    site: Site, settings: Any, statement: Any, alias: str, consistency: str
) -> None:
    """No description, no row, and psycopg's error for whoever fetches: what is carried along is not seen."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": consistency}}
    site.wait_until_online()
    write("a")
    site.wait_until_seen()
    with connections["default"].temporary_connection(), connections["default"].wrap_database_errors:
        expected = shown_by(CursorWrapper(connections["default"].create_cursor(), connections["default"]), statement)
    with routing_session(identity=WRITER), connections[alias].cursor() as cursor:
        assert shown_by(cursor, statement) == expected
        assert {d.reason for d in current_decisions()} == {Reason.REPLICA if alias == "replica1" else Reason.EXPLICIT}


def test_bytes_and_composed_statements_are_proved(site: Site) -> None:
    """psycopg takes three forms of a statement, and so does the cursor."""
    write("a")
    site.wait_until_seen()
    query = psycopg.sql.SQL("SELECT text FROM {}").format(psycopg.sql.Identifier("guestbook_entry"))
    for statement in (b"SELECT text FROM guestbook_entry", query):
        with routing_session(identity=WRITER), connections["replica1"].cursor() as cursor:
            cursor.execute(statement)
            assert cursor.fetchall() == [("a",)]
            assert {d.reason for d in current_decisions()} == {Reason.REPLICA}
