"""The primary is down, every replica is down, one was promoted: what still works, and what says clearly that it does not."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from django_pglb import PrimaryProtected, connection_for_read, current_decisions, mark_write, routing_session, runtime
from django_pglb.context import current_scope
from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import Bound
from django_pglb.core.topology import Host, HostState
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .guestbook.models import Entry
from .test_failover import fill, stop_checking
from .test_read_your_writes import signed_in

WRITER = ("test", "writer")

# --- The primary is down ---


@pytest.fixture
def without_primary(site: Site, user: Any) -> Iterator[tuple[Site, Client]]:
    """The site whose primary has just died, and a browser that is signed in and has written before."""
    browser = signed_in(user)
    browser.post("/write/", {"text": "last"})
    site.wait_until_seen()
    site.cluster.primary.kill()
    site.wait_for_states(default=HostState.OFFLINE)
    connections.close_all()
    yield site, browser
    site.cluster.primary.start()


def test_signed_in_page_keeps_rendering_without_a_primary(without_primary: tuple[Site, Client]) -> None:
    """Session, user and page come from a replica that has reached what this user wrote."""
    _, browser = without_primary
    for path, expected in (("/whoami/", {"user": "ann"}), ("/newest/", {"text": "last"})):
        response = browser.get(path)
        assert response.json() == expected
        assert Served(response).aliases <= {"replica1", "replica2"}
        assert Served(response).reasons == {Reason.REPLICA}


def test_lost_positions_are_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """However many writers are pinned for want of one; and once that all is well again."""
    site.cluster.primary.kill()
    for _ in range(3):
        with routing_session(identity=WRITER):
            mark_write()
    site.cluster.primary.start()
    with routing_session(identity=WRITER):
        mark_write()
    said = [record.getMessage() for record in caplog.records if record.name == "django_pglb.store"]
    assert said == [
        "No position can be taken on default (OperationalError): who writes is pinned to it.",
        "Positions can be taken on default again.",
    ]


def test_writes_without_a_primary_fail_fast(without_primary: tuple[Site, Client]) -> None:
    """Plain Django's error, after the attempts."""
    _, browser = without_primary
    with pytest.raises(OperationalError, match="refused"):
        browser.post("/write/", {"text": "x"})
    # It has certainly written nothing, so it binds nobody to a host that is not there.
    response = browser.get("/newest/")
    assert response.json() == {"text": "last"}
    assert Served(response).reasons == {Reason.REPLICA}


def test_reader_whom_no_replica_can_serve_gets_an_error_without_a_primary(site: Site) -> None:
    """What cannot be answered truthfully is an error, not the past; somebody who wrote nothing is served."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=WRITER):
        Entry.objects.create(text="new")
    site.cluster.primary.kill()
    try:
        site.wait_for_states(default=HostState.OFFLINE)
        connections.close_all()
        with routing_session(identity=WRITER), pytest.raises(OperationalError):
            Entry.objects.count()
        with routing_session():
            assert Entry.objects.count() == 0
            assert [d.reason for d in current_decisions()] == [Reason.REPLICA]
    finally:
        site.cluster.primary.start()


def test_replica_that_has_it_is_found_though_no_probe_has_seen_it_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write just before the primary died: whoever is online is asked, and proves it."""
    site.wait_until_seen()
    stop_checking(monkeypatch)
    with routing_session(identity=WRITER):
        Entry.objects.create(text="new")
    site.cluster.wait_until_replicas_caught_up()
    site.cluster.primary.kill()
    connections.close_all()
    runtime.get_runtime().checker.report_failure("default", "killed by this test")
    try:
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "new"
            assert [d.reason for d in current_decisions()] == [Reason.REPLICA]
    finally:
        site.cluster.primary.start()


@pytest.fixture
def just_without_primary(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Only replica2 has what the writer wrote, the odds are against both, and the primary died before anybody looked again."""
    site.wait_until_seen()
    stop_checking(monkeypatch)
    monkeypatch.setattr(Host, "has_probably_reached", lambda *_: False)
    site.cluster.replicas[0].pause_replay()
    with routing_session(identity=WRITER):
        Entry.objects.create(text="new")
    site.cluster.replicas[1].wait_for_lsn(site.cluster.primary.write_lsn)
    site.cluster.primary.kill()
    connections.close_all()
    yield site
    site.cluster.primary.start()


def count_by_router() -> int:
    return Entry.objects.count()


def count_on_replica() -> int:
    return Entry.objects.using("replica1").count()


def count_by_server_side_cursor() -> int:
    return len(list(Entry.objects.iterator()))


def count_by_raw_sql() -> int:
    with connection_for_read().cursor() as cursor:
        cursor.execute("SELECT count(*) FROM guestbook_entry")
        (count,) = cursor.fetchone()
    return int(count)


@pytest.mark.parametrize("read", [count_by_router, count_on_replica, count_by_server_side_cursor, count_by_raw_sql])
def test_replicas_are_asked_against_the_odds_when_the_primary_cannot_be_reached(
    just_without_primary: Site, read: Callable[[], int]
) -> None:
    """Nobody could know yet that it is down; the one that has it answers, and goes on answering."""
    since = just_without_primary.log_end("replica2")
    with routing_session(identity=WRITER) as current:
        assert read() == 1
        (entry,) = Entry.objects.all()
        entry.refresh_from_db()
    # Which of the two is asked first is left to chance.
    assert {alias for alias, _, _ in current.decisions()} == {"replica2"}
    assert {reason for _, reason, _ in current.decisions()} <= {Reason.FAILOVER, Reason.REPLICA}
    assert sum("guestbook_entry" in statement for statement in just_without_primary.statements("replica2", since)) == 3


def test_what_no_replica_has_or_may_answer_is_an_error_when_the_primary_cannot_be_reached(just_without_primary: Site) -> None:
    """Plain Django's, and the same for everything but a read that the primary was to answer for want of a replica."""
    beyond = just_without_primary.cluster.replicas[1].replay_lsn + 1_000_000
    (bound,) = runtime.get_runtime().load("default", [WRITER])
    assert bound.pointer is not None
    runtime.get_runtime().save("default", [("test", "other")], Bound(bound.pointer._replace(lsn=beyond)))
    with routing_session(identity=("test", "other")), pytest.raises(OperationalError, match="refused"):
        Entry.objects.count()
    with routing_session(identity=WRITER):
        for refused in (
            lambda: Entry.objects.create(text="x"),
            lambda: list(Entry.objects.using("default")),
            lambda: transaction.atomic().__enter__(),
        ):
            with pytest.raises(OperationalError, match="refused"):
                refused()
        assert current_decisions() == ()


def test_post_whose_thread_wrote_before_the_primary_died_pins(site: Site, browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was well when the request began, and gives no position at its end: what a thread of the view wrote must not be missed."""

    def view(request: HttpRequest) -> HttpResponse:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_and_close).result()
        site.cluster.primary.kill()
        connections["default"].close()
        return HttpResponse()

    try:
        request = RequestFactory().post("/")
        response = LoadBalancingMiddleware(view)(request)
        assert "pglb" in response.cookies
    finally:
        site.cluster.primary.start()
    browser.cookies["pglb"] = response.cookies["pglb"].value
    answer = browser.get("/newest/")
    assert answer.json() == {"text": "unseen"}
    assert Served(answer).reasons == {Reason.BEHIND}


def write_and_close() -> None:
    Entry.objects.create(text="unseen")
    connections.close_all()


# --- Nothing was sent to the primary ---


@contextmanager
def killed(site: Site) -> Iterator[None]:
    site.cluster.primary.kill()
    yield
    site.cluster.primary.start()


@contextmanager
def led_to(**place: Any) -> Iterator[None]:
    """`default` leads somewhere else."""
    settings_dict = connections["default"].settings_dict
    before = {key: settings_dict[key] for key in place}
    settings_dict.update(place)
    yield
    connections["default"].close()
    settings_dict.update(before)


@contextmanager
def starting(site: Site) -> Iterator[None]:
    """Whatever is asked of the server, it is starting up (57P03)."""
    said = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as client:
                        client.recv(65536)
                        client.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)

        pool.submit(refuse)
        with led_to(PORT=server.getsockname()[1]):
            yield
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def full(site: Site) -> Iterator[None]:
    with ExitStack() as taken:
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(site.cluster.primary.connect())
        yield


REFUSALS: dict[str, Callable[[Site], AbstractContextManager[None]]] = {
    "connection refused": killed,
    "unknown host": lambda site: led_to(HOST="nowhere.invalid"),
    "a standby": lambda site: led_to(PORT=site.cluster.replicas[0].port),
    "starting up": starting,
    "too many clients": full,
}


@contextmanager
def refusing(site: Site, refusal: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection to the primary is refused, and the checker knows of nothing."""
    site.wait_until_seen()
    stop_checking(monkeypatch)
    connections["default"].close()
    with REFUSALS[refusal](site):
        yield


def write_at_once() -> None:
    Entry.objects.create(text="lost")


def write_in_a_block() -> None:
    with transaction.atomic():
        Entry.objects.create(text="lost")


def write_to_a_replica() -> None:
    with connections["replica1"].cursor() as cursor:
        cursor.execute("INSERT INTO guestbook_entry (text, created) VALUES ('lost', now())")


def copy_in() -> None:
    with connections["replica1"].cursor() as cursor, cursor.copy("COPY guestbook_author (name) FROM STDIN") as copy:
        copy.write_row(["lost"])


@pytest.mark.parametrize("refusal", REFUSALS)
def test_post_that_the_primary_refused_does_not_keep_its_user_from_the_replicas(
    site: Site, user: Any, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one attempt came through, so nothing was written: the error is the user's, and the pages go on."""
    browser = signed_in(user)
    browser.post("/write/", {"text": "last"})
    with refusing(site, refusal, monkeypatch):
        before = browser.cookies["pglb"].value
        with pytest.raises(OperationalError):
            browser.post("/write/", {"text": "lost"})
        assert browser.cookies["pglb"].value == before
        response = browser.get("/newest/")
        assert response.json() == {"text": "last"}
        assert Served(response).aliases <= {"replica1", "replica2"}


@pytest.mark.parametrize("write", [write_at_once, write_in_a_block, write_to_a_replica, copy_in])
@pytest.mark.parametrize("refusal", ["connection refused", "a standby"])
def test_unit_whose_writes_were_refused_pins_nobody(
    site: Site, refusal: str, write: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever door it took."""
    fill(site)
    with refusing(site, refusal, monkeypatch):
        with routing_session(identity=WRITER), pytest.raises((OperationalError, psycopg.OperationalError)):
            write()
        with routing_session(identity=WRITER):
            assert Entry.objects.count() == 5
            assert [decision.reason for decision in current_decisions()] == [Reason.REPLICA]


def test_transaction_that_was_lost_before_its_commit_pins_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgets it; the commit was never sent."""
    fill(site)
    site.wait_until_seen()
    stop_checking(monkeypatch)
    try:
        with routing_session(identity=WRITER), suppress(OperationalError), transaction.atomic():
            Entry.objects.create(text="lost")
            site.cluster.primary.kill()
            Entry.objects.create(text="lost as well")
            pytest.fail("the primary is dead")
        with routing_session(identity=WRITER):
            assert Entry.objects.count() == 5
            assert [decision.reason for decision in current_decisions()] == [Reason.REPLICA]
    finally:
        site.cluster.primary.start()


@pytest.mark.parametrize("outer", [False, True])
def test_committed_write_pins_when_its_position_cannot_be_taken(site: Site, outer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the block that committed it was opened around the unit, inside another one: nobody may miss it."""
    site.pause_replay()
    stop_checking(monkeypatch)
    try:
        with routing_session(identity=WRITER):
            if outer:
                with transaction.atomic(), routing_session():
                    Entry.objects.create(text="kept")
            else:
                with transaction.atomic():
                    Entry.objects.create(text="kept")
            site.cluster.primary.kill()
        with routing_session(identity=WRITER), pytest.raises(OperationalError):
            Entry.objects.count()
    finally:
        site.cluster.primary.start()


# --- Every replica is down ---


@pytest.fixture
def without_replicas(site: Site, settings: Any) -> Site:
    """The site with a limit of one read at a time, and no replica."""
    fill(site)
    settings.PGLB = {"default": {**settings.PGLB["default"], "PRIMARY_FALLBACK_LIMIT": 1}}
    site.wait_until_online()
    for replica in site.cluster.replicas:
        replica.kill()
    site.wait_for_states(replica1=HostState.OFFLINE, replica2=HostState.OFFLINE)
    return site


RUNNING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep')"
)


def read_slowly() -> Any:
    try:
        with routing_session(), connections["replica1"].cursor() as cursor:
            cursor.execute("SELECT count(*), (SELECT pg_sleep(2)) FROM guestbook_entry")
            return cursor.fetchone(), current_decisions()
    finally:
        connections.close_all()


def test_primary_is_protected_from_all_the_reads_at_once(without_replicas: Site) -> None:
    """One read at a time; the next one is refused at once, and served when there is room again. Writes are not counted."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_slowly)
        wait_until(lambda: without_replicas.cluster.primary.ask(RUNNING), timeout=30, what="the slow read to run")
        with routing_session(), pytest.raises(PrimaryProtected, match="PRIMARY_FALLBACK_LIMIT"):
            Entry.objects.count()
        Entry.objects.create(text="x")
        assert slow.result() == ((5, ""), (("default", Reason.NO_REPLICA, 1),))
    with routing_session():
        assert Entry.objects.count() == 6
        assert current_decisions() == (("default", Reason.NO_REPLICA, 1),)


def test_limit_leaves_other_reads_of_the_primary_alone(without_replicas: Site) -> None:
    """Whoever is there for another reason than want of a replica was there before, too."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_slowly)
        wait_until(lambda: without_replicas.cluster.primary.ask(RUNNING), timeout=30, what="the slow read to run")
        assert Entry.objects.count() == 5
        with routing_session():
            Entry.objects.create(text="x")
            assert Entry.objects.count() == 6
        assert slow.result()[0] == (5, "")


def test_streams_are_counted_and_transactions_are_not(without_replicas: Site) -> None:
    """A stream is a read for want of a replica; what is read in a transaction on the primary belongs there."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_slowly)
        wait_until(lambda: without_replicas.cluster.primary.ask(RUNNING), timeout=30, what="the slow read to run")
        with routing_session(), connections["replica1"].cursor() as cursor:
            with pytest.raises(PrimaryProtected):
                next(cursor.stream("SELECT 1"))
            with pytest.raises(PrimaryProtected):
                Entry.objects.count()
            with transaction.atomic(), connections["default"].cursor() as inner:
                inner.execute("SELECT count(*) FROM guestbook_entry")
                assert inner.fetchone() == (5,)
        assert slow.result()[0] == (5, "")


def test_error_that_protects_the_primary_is_an_operational_error() -> None:
    """Code that expects what plain Django raises goes on to work."""
    assert issubclass(PrimaryProtected, OperationalError)


# --- A replica is promoted ---


def test_promotion_is_noticed_by_the_first_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any probe: the server says so by itself, and what it answered is thrown away."""
    with routing_session():
        Entry.objects.using("replica1").count()
    stop_checking(monkeypatch)
    promoted = site.cluster.replicas[0]
    promoted.promote()
    with promoted.connect(dbname="site") as connection:
        connection.execute("INSERT INTO guestbook_entry (text, created) VALUES ('never on the primary', now())")
    with routing_session():
        assert Entry.objects.using("replica1").count() == 0
        assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)
    host = runtime.get_runtime().topology("default").by_alias["replica1"]
    assert (host.state, "promoted" in host.why) == (HostState.OFFLINE, True)


def test_pointer_of_the_old_timeline_is_renewed_after_a_failover(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The first page after it is read on the new primary, and binds by its timeline; the next ones are on replicas again."""
    with routing_session(identity=WRITER):
        Entry.objects.create(text="survives")
    site.wait_until_seen()
    old, (promoted, other) = site.cluster.primary, site.cluster.replicas
    old.kill()
    promoted.promote()
    other.follow(promoted)
    connections.close_all()
    connections["default"].settings_dict["PORT"] = promoted.port
    runtime.reset()
    try:
        site.wait_for_states(default=HostState.ONLINE, replica2=HostState.ONLINE)
        with routing_session(identity=WRITER):
            assert Entry.objects.get().text == "survives"
            assert current_decisions() == (("default", Reason.BEHIND, 1),)
        other.wait_for_lsn(promoted.write_lsn)

        def is_on_replica() -> bool:
            with routing_session(identity=WRITER):
                assert Entry.objects.get().text == "survives"
                routing = current_scope().routing
                assert routing is not None
                bound = routing.cluster("default").bound.pointer
                assert bound is not None
                assert bound.timeline == promoted.timeline
                return current_decisions() == (("replica2", Reason.REPLICA, 1),)

        wait_until(is_on_replica, timeout=30, what="the follower to answer")
    finally:
        connections.close_all()
        connections["default"].settings_dict["PORT"] = old.port
        runtime.reset()
        old.start()


def test_all_replicas_down_is_said_once(without_replicas: Site, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for the cluster, however many reads the primary answers then."""

    def warnings() -> list[str]:
        records = [*caplog.get_records("setup"), *caplog.records]
        return [record.getMessage() for record in records if record.name.startswith("django_pglb") and record.levelno >= logging.WARNING]

    wait_until(lambda: any("no replica to read from" in text for text in warnings()), timeout=30, what="the warning")
    before = warnings()
    for _ in range(20):
        with routing_session():
            assert Entry.objects.count() == 5
            assert current_decisions() == (("default", Reason.NO_REPLICA, 1),)
    assert warnings() == before
    assert sum("no replica to read from" in text for text in before) == 1
