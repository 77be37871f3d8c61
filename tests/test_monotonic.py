"""CONSISTENCY = "monotonic": nobody sees time go backwards, whichever host answers, and it costs no round trip to a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.backends.cached_db import KEY_PREFIX
from django.core.cache import caches
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, modify_settings

from django_pglb import current_decisions, export_pointer, ignore_writes, mark_write, routing_session, runtime, use_primary, use_replicas
from django_pglb.context import current_scope
from django_pglb.core.decision import Reason
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound, ClusterSession
from django_pglb.core.topology import Host
from django_pglb.identity import session_owners
from django_pglb.pointers import bind
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .guestbook.models import Entry
from .test_read_your_writes import signed_in

READER = ("test", "reader")
READS: dict[str, Callable[[], object]] = {
    "count": lambda: Entry.objects.count(),
    "iterator": lambda: list(Entry.objects.iterator(chunk_size=1)),
    "raw text with a comment at its end": lambda: run("SELECT count(*) FROM guestbook_entry -- all of them"),
    "raw text with a semicolon at its end": lambda: run("SELECT count(*) FROM guestbook_entry ;"),
    "bytes": lambda: run(b"SELECT count(*) FROM guestbook_entry"),
    "copy": lambda: copied("COPY (SELECT count(*) FROM guestbook_entry) TO STDOUT"),
    "stream": lambda: streamed("SELECT count(*) FROM guestbook_entry"),
    "explain": lambda: run("EXPLAIN SELECT 1"),
}


@pytest.fixture
def monotonic(site: Site, settings: Any) -> Site:
    """The site in monotonic mode, with both replicas online and nothing more to replay."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    site.wait_until_online()
    site.wait_until_seen()
    return site


def run(statement: Any) -> Any:
    with connections["replica1"].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def copied(statement: str) -> bytes:
    with connections["replica1"].cursor() as cursor, cursor.copy(statement) as copy:
        return b"".join(bytes(block) for block in copy)


def streamed(statement: str) -> list[Any]:
    with connections["replica1"].cursor() as cursor:
        return list(cursor.stream(statement))


def write_elsewhere(site: Site, text: str) -> None:
    """Write as somebody whom nobody here knows."""
    with site.cluster.primary.connect(dbname="site") as connection:
        connection.execute("INSERT INTO guestbook_entry (text, created) VALUES (%s, now())", (text,))


def cluster_session() -> ClusterSession:
    routing = current_scope().routing
    assert routing is not None
    return routing.cluster("default")


def read_until(browser: Client, text: str) -> Served:
    for _ in range(200):
        response = browser.get("/newest/")
        if response.json() == {"text": text}:
            return Served(response)
    raise AssertionError(f"nobody showed {text!r}")


def test_what_was_seen_on_one_replica_is_never_missing_on_another(monotonic: Site, user: Any) -> None:
    """One replica stands still. Whoever has seen the new entry on the other one sees it ever after, on any device."""
    browser, other = signed_in(user), signed_in(user)
    monotonic.wait_until_seen()
    monotonic.cluster.replicas[1].pause_replay()
    write_elsewhere(monotonic, "new")
    monotonic.cluster.replicas[0].wait_until_caught_up()
    assert read_until(browser, "new").aliases == {"replica1"}
    answers = [client.get("/newest/") for _ in range(20) for client in (browser, other)]
    assert {answer.json()["text"] for answer in answers} == {"new"}
    assert {(alias, reason) for answer in answers for alias, reason, _ in Served(answer).decisions} <= {
        ("replica1", Reason.REPLICA),
        ("default", Reason.BEHIND),
    }
    assert any(Served(answer).aliases == {"replica1"} for answer in answers)


def test_what_was_seen_on_the_primary_is_not_missing_on_a_replica(monotonic: Site) -> None:
    """Both replicas stand still and the unit that saw more only read, on the primary."""
    for replica in monotonic.cluster.replicas:
        replica.pause_replay()
    write_elsewhere(monotonic, "new")
    with routing_session(identity=READER), use_primary():
        assert Entry.objects.get().text == "new"
    with routing_session(identity=READER):
        assert Entry.objects.get().text == "new"
        assert current_decisions() == (("default", Reason.BEHIND, 1),)


def test_replica_that_stalls_keeps_its_readers(monotonic: Site) -> None:
    """It has more to replay than it shows, and yet shows everything that was seen on it: its readers may stay there."""
    first, second = monotonic.cluster.replicas
    for replica in (first, second):
        replica.pause_replay()
    write_elsewhere(monotonic, "in the WAL of both, and replayed by none")
    aliases = set()
    for _ in range(5):
        with routing_session(identity=READER):
            assert Entry.objects.using("replica1").count() == 0
            aliases |= {(d.alias, d.reason) for d in current_decisions()}
    assert aliases == {("replica1", Reason.REPLICA)}


def test_read_carries_its_position_in_its_own_message(monotonic: Site) -> None:
    """One message to the replica, also bound, and none to anybody else."""
    with routing_session(identity=READER):
        Entry.objects.count()
    write_elsewhere(monotonic, "new")
    monotonic.wait_until_seen()
    since = {alias: monotonic.log_end(alias) for alias in ("default", "replica1", "replica2")}
    with routing_session(identity=READER):
        assert Entry.objects.count() == 1
        assert [d.reason for d in current_decisions()] == [Reason.REPLICA]
    messages = [text for alias, end in since.items() for text in monotonic.statements(alias, end)]
    assert len(messages) == 1
    assert [word for word in ("transaction_isolation", "guestbook_entry", "pg_last_wal_receive_lsn") if word in messages[0]] == [
        "transaction_isolation",
        "guestbook_entry",
        "pg_last_wal_receive_lsn",
    ]


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_every_way_to_read_is_remembered(monotonic: Site, read: Callable[[], object]) -> None:
    """What was seen, or that something was whose position is asked at the end."""
    write_elsewhere(monotonic, "new")
    # Not asked later: the server writes by itself, too.
    wanted = monotonic.cluster.primary.write_lsn
    monotonic.wait_until_seen(wanted)
    with routing_session(identity=READER):
        read()
        assert {d.alias for d in current_decisions()} <= {"replica1", "replica2"}
        cluster = cluster_session()
        assert cluster.saw_unknown or (cluster.seen_at_most is not None and cluster.seen_at_most.lsn >= wanted)
    with routing_session(identity=READER):
        Entry.objects.count()
        bound = cluster_session().bound.pointer
        assert bound is not None
        assert bound.lsn >= wanted


def test_read_in_a_transaction_on_the_primary_is_remembered(monotonic: Site) -> None:
    """Locked rows, and whatever else is read beside them."""
    write_elsewhere(monotonic, "new")
    wanted = monotonic.cluster.primary.write_lsn
    with routing_session(identity=READER):
        with transaction.atomic():
            list(Entry.objects.select_for_update())
        seen = cluster_session().seen_at_most
    assert seen is not None
    assert seen.lsn >= wanted


def test_callers_result_ends_where_it_would_without_us(monotonic: Site) -> None:
    """The position is taken away before the caller can come across it."""
    with routing_session(identity=READER), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT 1 AS one")
        assert (cursor.description[0].name, cursor.rowcount, cursor.fetchall()) == ("one", 1, [(1,)])
        assert not cursor.nextset()
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.fetchall() == [(1,)]
        assert cursor.nextset()
        assert cursor.fetchall() == [(2,)]
        assert not cursor.nextset()


def stored_writes(site: Site) -> int:
    statistics: Any = site.redis.info("commandstats")
    return int(statistics.get("cmdstat_set", {}).get("calls", 0))


def test_nothing_is_stored_that_the_store_knows(monotonic: Site) -> None:
    """One write for what was seen, and none while nothing new was; none at all for whoever is nobody."""
    monotonic.redis.config_resetstat()
    with routing_session(identity=READER):
        Entry.objects.count()
    assert stored_writes(monotonic) == 1
    for identity in (READER, ()):
        with routing_session(identity=identity):
            Entry.objects.count()
            assert [d.reason for d in current_decisions()] == [Reason.REPLICA]
    assert stored_writes(monotonic) == 1


def test_page_that_writes_nothing_sets_no_cookie(monotonic: Site, user: Any) -> None:
    """Caches may keep it; a slow one would take back what a quicker one has brought. The store is told, or owed."""
    browser = signed_in(user)
    monotonic.wait_until_seen()
    write_elsewhere(monotonic, "new")
    assert "pglb" not in browser.get("/newest/").cookies
    monotonic.cluster.redis.kill()
    assert "pglb" not in browser.get("/newest/").cookies


def test_whoever_knows_least_counts(monotonic: Site) -> None:
    """What a unit saw is saved unless each of those whom it acts for is known to have seen it."""
    tenant, user = ("tenant", "1"), ("user", "1")
    first, second = monotonic.cluster.replicas
    second.pause_replay()
    write_elsewhere(monotonic, "new")
    first.wait_until_caught_up()
    for identity in ([tenant], [tenant, user]):
        with routing_session(identity=identity):
            assert Entry.objects.using("replica1").count() == 1
    with routing_session(identity=[user]):
        assert Entry.objects.using("replica2").count() == 1


@pytest.mark.parametrize("lost", ["a write", "an aborted stream"])
def test_what_was_seen_is_saved_though_the_primary_gives_no_position(monotonic: Site, settings: Any, lost: str) -> None:
    """The primary dies: whoever it answered last is pinned for a while, and what was seen on a replica outlives that."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "STICKY_SECONDS": 0.01, "MAX_LAG_SECONDS": None}}
    monotonic.wait_until_online()
    first, second = monotonic.cluster.replicas
    second.pause_replay()
    write_elsewhere(monotonic, "new")
    first.wait_until_caught_up()
    try:
        with routing_session(identity=READER):
            assert Entry.objects.using("replica1").count() == 1
            monotonic.cluster.primary.kill()
            connections["default"].close()
            if lost == "a write":
                mark_write()
            else:
                with connections["replica1"].cursor() as cursor:
                    next(cursor.stream("SELECT 1 UNION ALL SELECT 2"))
        with routing_session(identity=READER):
            bound = runtime.get_runtime().load("default", [READER])[0].pointer
            assert bound is not None
            assert bound.exact_lsn >= first.replay_lsn
    finally:
        connections.close_all()
        monotonic.cluster.primary.start()


def test_what_a_write_shows_that_binds_nobody_is_remembered(monotonic: Site) -> None:
    """`ignore_writes()` spares a pointer for the write, not for what its RETURNING showed."""
    for replica in monotonic.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=READER), ignore_writes(), connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO guestbook_entry (text, created) VALUES ('shown', now()) RETURNING text")
        assert cursor.fetchone() == ("shown",)
    with routing_session(identity=READER):
        assert Entry.objects.count() == 1
        assert current_decisions() == (("default", Reason.BEHIND, 1),)


def reading(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that reads."""

    def middleware(request: HttpRequest) -> HttpResponse:
        Entry.objects.count()
        return get_response(request)

    return middleware


def with_cookies_of(browser: Client) -> Client:
    """Return the same browser on a site whose middleware is loaded anew."""
    other = Client()
    other.cookies = browser.cookies
    return other


def test_post_that_reads_by_the_pointer_remembers_what_was_read_before_its_view(monotonic: Site, user: Any) -> None:
    """Middleware reads on the primary, as the method is unsafe; then `replica_reads()` says that nothing was written."""
    browser = signed_in(user)
    monotonic.wait_until_seen()
    for replica in monotonic.cluster.replicas:
        replica.pause_replay()
    write_elsewhere(monotonic, "new")

    with modify_settings(MIDDLEWARE={"append": f"{__name__}.reading"}):
        browser = with_cookies_of(browser)
        assert browser.post("/search/").json() == {"count": 1}
    response = browser.get("/newest/")
    assert response.json() == {"text": "new"}
    assert Served(response).reasons == {Reason.BEHIND}


def test_unit_that_fails_over_goes_on_where_it_was(monotonic: Site) -> None:
    """Between two reads of one unit its host dies; the other one stands still before what the first one showed."""
    first, second = monotonic.cluster.replicas
    second.pause_replay()
    write_elsewhere(monotonic, "new")
    first.wait_until_caught_up()
    with routing_session():
        assert Entry.objects.using("replica1").count() == 1
        first.kill()
        assert Entry.objects.using("replica1").count() == 1
        assert current_decisions()[-1].alias == "default"


def test_inner_unit_sees_what_the_outer_one_saw(monotonic: Site) -> None:
    """And what the inner one saw, the outer one saves."""
    first, second = monotonic.cluster.replicas
    second.pause_replay()
    write_elsewhere(monotonic, "new")
    first.wait_until_caught_up()
    with routing_session(identity=READER):
        with routing_session():
            assert Entry.objects.using("replica1").count() == 1
        with routing_session():
            assert Entry.objects.using("replica2").count() == 1
    with routing_session(identity=READER):
        assert Entry.objects.using("replica2").count() == 1


def test_exported_pointer_carries_what_was_seen(monotonic: Site) -> None:
    """A job that a reading page starts must not see less than the page did."""
    with routing_session():
        write_elsewhere(monotonic, "new")
        with use_primary():
            assert Entry.objects.count() == 1
        pointer = export_pointer()
    for replica in monotonic.cluster.replicas:
        replica.pause_replay()
    write_elsewhere(monotonic, "newer")
    with routing_session(pointer=pointer):
        cluster_session()
        Entry.objects.count()
        bound = cluster_session().bound.pointer
        assert bound is not None
        assert bound.lsn > 0


def test_read_your_writes_remembers_nothing_that_was_only_seen(site: Site) -> None:
    """The cheaper promise costs nothing more than before."""
    site.redis.config_resetstat()
    since = {alias: site.log_end(alias) for alias in ("default", "replica1", "replica2")}
    with routing_session(identity=READER):
        Entry.objects.count()
    assert stored_writes(site) == 0
    assert not any("pg_last_wal" in text for alias, end in since.items() for text in site.statements(alias, end))
    assert runtime.get_runtime().is_monotonic("default") is False


def test_reader_stays_on_a_replica_that_lags(monotonic: Site) -> None:
    """What was seen on a replica is there, though no look has found it so far: others' writes send nobody to the primary."""
    for replica in monotonic.cluster.replicas:
        replica.delay_replay(1)
    found = set()

    def read_after_write() -> int:
        write_elsewhere(monotonic, "x")
        with routing_session(identity=READER):
            seen = Entry.objects.count()
            found.update((decision.alias == "default", decision.reason) for decision in current_decisions())
        return seen

    wait_until(lambda: read_after_write() >= 40, timeout=60, what="the reader to see forty entries")
    assert found == {(False, Reason.REPLICA)}


def test_replica_that_has_shown_more_than_binds_is_not_left(monotonic: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was after a read is known, whatever the last look at it says, and proved to whom the unit turns out to act for."""
    write_elsewhere(monotonic, "new")
    monotonic.wait_until_seen()
    with routing_session(identity=READER):
        assert Entry.objects.using("replica1").count() == 1
    with routing_session(identity=("test", "another")) as routing:
        assert Entry.objects.using("replica2").count() == 1
        monkeypatch.setattr(Host, "has_probably_reached", lambda *_: False)
        since = monotonic.log_end("replica2")
        bind(routing, READER)
        assert Entry.objects.count() == 1
        assert cluster_session().bound.pointer is not None
        assert current_decisions() == (("replica2", Reason.REPLICA, 2),)
    assert not any("transaction_isolation" in text for text in monotonic.statements("replica2", since))


def test_position_that_an_old_snapshot_shows_proves_nothing(monotonic: Site) -> None:
    """In a transaction that goes by one, the replica replays on, and what is read stays as it was: who is bound by more reads elsewhere."""
    with routing_session(identity=("test", "another")) as routing, use_replicas(), transaction.atomic(using="replica1"):
        with connections["replica1"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert Entry.objects.using("replica1").count() == 0
        write_elsewhere(monotonic, "new")
        wanted = Pointer(monotonic.cluster.primary.timeline, monotonic.cluster.primary.write_lsn)
        monotonic.wait_until_seen(wanted.lsn)
        assert Entry.objects.using("replica1").count() == 0
        runtime.get_runtime().save("default", [READER], Bound(wanted))
        bind(routing, READER)
        assert max(cluster_session().proofs.values(), default=-1) < wanted.lsn
        with use_primary():
            assert Entry.objects.using("replica1").count() == 1


def stands_still_with_more_to_replay(site: Site) -> bool:
    """Say whether the replicas, paused, are at one position and have received more. Lets them go on if they are not."""
    found = {replica.ask("SELECT pg_last_wal_replay_lsn()::text") for replica in site.cluster.replicas}
    if len(found) > 1:
        site.resume_replay()
        site.pause_replay()
        write_elsewhere(site, "in the WAL of both, and replayed by none")
    return all(replica.ask("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()") for replica in site.cluster.replicas)


LOOKED_AT = {
    "db": [("replica2", Reason.REPLICA, 1), ("replica1", Reason.REPLICA, 3)],
    # What was seen there is kept in the cache.
    "cached_db": [("replica2", Reason.REPLICA, 1), ("default", Reason.BEHIND, 2)],
}


@pytest.mark.parametrize(("engine", "expected"), LOOKED_AT.items(), ids=LOOKED_AT.keys())
def test_look_for_whose_a_session_is_binds_nobody(monotonic: Site, user: Any, settings: Any, engine: str, expected: object) -> None:
    """Both replicas stand still with more to replay, and a user has read from one: so does a device that this process sees first.

    Whose session it has is asked of the other one, which may have shown more by then; the session itself is read where the page is.
    """
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    browser = signed_in(user)
    caches["default"].delete(KEY_PREFIX + browser.cookies["sessionid"].value)
    monotonic.pause_replay()
    write_elsewhere(monotonic, "in the WAL of both, and replayed by none")
    wait_until(lambda: stands_still_with_more_to_replay(monotonic), timeout=60, what="both replicas to stand still")
    with routing_session(identity=("user", str(user.pk))):
        list(Entry.objects.using("replica1"))
    session_owners.clear()
    # The other one is the first choice then.
    runtime.get_runtime().in_flight["replica1"].append(None)
    with modify_settings(MIDDLEWARE={"append": f"{__name__}.reading"}):
        response = with_cookies_of(browser).get("/whoami/")
    assert response.json() == {"user": "ann"}
    assert Served(response).decisions == expected
