"""Reads that go where the rules have sent an earlier one: nobody can tell them from those that the rules are asked for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from math import inf
from typing import Any

import pytest
from django.apps import apps
from django.db import DataError, OperationalError, connection, connections, router, transaction
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext

from django_pglb import (
    connection_for_read,
    current_decisions,
    export_pointer,
    ignore_writes,
    placement,
    pointers,
    routing_session,
    runtime,
    use_primary,
    use_replicas,
)
from django_pglb.backends.cursor import if_djangos
from django_pglb.context import open_routing
from django_pglb.core.decision import DecisionCount, Reason
from django_pglb.core.routing_session import Identity, Nobody, RoutingSession
from django_pglb.core.topology import Topology
from django_pglb.errors import PrimaryProtected
from django_pglb.health.clock import now
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Author, Entry
from .test_failover import TERMINATE
from .test_proof import REPLICAS, WRITER, BelievingChecker

NEWEST = "SELECT text FROM guestbook_entry ORDER BY id DESC LIMIT 1"
Read = Callable[[], tuple[str | None, str, Reason]]


@pytest.fixture
def checker(site: Site, settings: Any) -> Iterator[BelievingChecker]:
    """Makes nothing change by itself: nobody looks at the hosts, and no unit of work gets old."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    yield put_in_place(BelievingChecker())
    runtime.reset()


def put_in_place(checker: BelievingChecker) -> BelievingChecker:
    runtime.get_runtime().checker.close()
    runtime.get_runtime().checker = checker  # type: ignore[assignment]
    return checker


@pytest.fixture(params=["router", "cursor"])
def read(request: Any, checker: BelievingChecker) -> Read:
    """Returns the newest text, who answered, and why. The cursor is opened on a replica once, so nobody asks the router any more."""
    cursors: list[Any] = []

    def by_cursor() -> str | None:
        cursors[:] = cursors or [connection_for_read().cursor()]
        cursors[0].execute(NEWEST)
        row = cursors[0].fetchone()
        return row and row[0]  # type: ignore[no-any-return]

    return lambda: answered(newest if request.param == "router" else by_cursor)


def newest() -> str | None:
    return Entry.objects.order_by("-pk").values_list("text", flat=True).first()


def primarys_newest() -> str | None:
    with connection.cursor() as cursor:
        cursor.execute(NEWEST)
        row = cursor.fetchone()
        return row and row[0]  # type: ignore[no-any-return]


def answered(ask: Callable[[], str | None]) -> tuple[str | None, str, Reason]:
    before = set(current_decisions())
    text = ask()
    (counted,) = set(current_decisions()) - before
    return text, counted.alias, counted.reason


def held() -> bool:
    return placement.held_lease("default") is not None


def leased(read: Read) -> str:
    """Read until there is a lease. Returns on whom."""
    _, alias, reason = read()
    assert (alias in REPLICAS, reason) == (True, Reason.REPLICA)
    assert read()[1:] == (alias, reason)
    assert held()
    return alias


@contextmanager
def paused(site: Site) -> Iterator[None]:
    for replica in site.cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        site.resume_replay()


def write_elsewhere(text: str = "new") -> str:
    """Write in a unit of work of somebody else's. Returns a pointer."""
    with open_routing(None), routing_session(identity=WRITER):
        Entry.objects.create(text=text)
        return export_pointer()


def in_thread(function: Callable[[], object]) -> None:
    """Do it in another thread of this unit of work."""

    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    thread = threading.Thread(target=copy_context().run, args=[run])
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


# --- What ends it ---


def test_own_write_ends_it(site: Site, read: Read) -> None:
    """The primary answers: wrote."""
    with paused(site), routing_session():
        leased(read)
        Entry.objects.create(text="new")
        assert read() == ("new", "default", Reason.WROTE)


def test_write_of_another_thread_ends_it(site: Site, read: Read) -> None:
    """It is the same unit of work."""
    with paused(site), routing_session():
        leased(read)
        in_thread(lambda: Entry.objects.create(text="new"))
        assert read() == ("new", "default", Reason.WROTE)


def test_transaction_suspends_it(site: Site, read: Read) -> None:
    """What it has done is seen in it, also where that is no write of this unit of work; afterwards the replica goes on."""
    with paused(site), routing_session():
        alias = leased(read)
        with transaction.atomic():
            with ignore_writes():
                Entry.objects.create(text="new")
            assert read() == ("new", "default", Reason.TRANSACTION)
        assert read() == (None, alias, Reason.REPLICA)
        assert held()


def test_autocommit_off_suspends_it(site: Site, read: Read) -> None:
    """A transaction that Django does not manage is one, too."""
    with paused(site), routing_session():
        leased(read)
        connection.set_autocommit(False)
        try:
            with ignore_writes():
                Entry.objects.create(text="new")
            assert read() == ("new", "default", Reason.TRANSACTION)
        finally:
            connection.rollback()
            connection.set_autocommit(True)


def test_transaction_of_another_thread_does_not_touch_it(site: Site, read: Read) -> None:
    """Nor does that thread see it in its own transaction."""
    seen = []

    def read_in_transaction() -> None:
        with transaction.atomic():
            seen.append(answered(newest))

    with routing_session():
        alias = leased(read)
        in_thread(read_in_transaction)
        assert seen == [(None, "default", Reason.TRANSACTION)]
        assert read() == (None, alias, Reason.REPLICA)


def test_override_suspends_it(site: Site, read: Read) -> None:
    """`use_primary()` in a block, and the replica goes on after it."""
    with paused(site), routing_session():
        alias = leased(read)
        write_elsewhere()
        with use_primary():
            assert read() == ("new", "default", Reason.FORCED_PRIMARY)
        with use_replicas():
            assert read() == (None, alias, Reason.STALE_ALLOWED)
        assert held()
        assert read() == (None, alias, Reason.REPLICA)


def test_unit_of_work_inside_has_its_own(site: Site, read: Read) -> None:
    """What the inner one carries, the outer one must see from then on."""
    with paused(site), routing_session():
        leased(read)
        with routing_session(pointer=write_elsewhere()):
            assert not held()
            assert read() == ("new", "default", Reason.BEHIND)
        assert read() == ("new", "default", Reason.BEHIND)


def test_one_more_identity_ends_it(site: Site, read: Read) -> None:
    """The next read asks what that one has written."""
    with paused(site), routing_session(identity=("test", "reader")) as routing:
        leased(read)
        write_elsewhere()
        pointers.bind(routing, WRITER)
        assert read() == ("new", "default", Reason.BEHIND)


def test_age_of_the_unit_of_work_ends_it(site: Site, checker: BelievingChecker, settings: Any) -> None:
    """Though nothing has changed in this process: its user has written elsewhere."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 0.2}}
    put_in_place(checker)
    with paused(site), routing_session(identity=WRITER) as routing:
        for _ in range(2):
            assert Entry.objects.first() is None
        write_elsewhere()
        wait_until(lambda: now() >= routing.cluster("default").look_again_at, timeout=20, what="the unit to be older than an interval")
        assert answered(newest) == ("new", "default", Reason.BEHIND)


def test_news_of_the_hosts_end_it(checker: BelievingChecker, read: Read) -> None:
    """The other replica answers when this one has left the rotation."""
    with routing_session():
        alias = leased(read)
        checker.report_failure(alias, "test")
        (other,) = set(REPLICAS) - {alias}
        assert read() == (None, other, Reason.REPLICA)


class Doubted(BelievingChecker):
    """What it says is believed for a while."""

    believed_until = inf

    def topology(self, primary: str) -> Topology:
        topology = super().topology(primary)
        return topology if now() < self.believed_until else Topology(primary=topology.primary, replicas=())

    def trusted_until(self, primary: str, topology: Topology) -> float:
        return self.believed_until


def test_lack_of_news_ends_it(checker: BelievingChecker) -> None:
    """Nobody knows of any replica any more."""
    doubted = put_in_place(Doubted())
    assert isinstance(doubted, Doubted)
    doubted.believed_until = now() + 1
    with routing_session():
        for _ in range(2):
            Entry.objects.first()
        wait_until(lambda: now() >= doubted.believed_until, timeout=20, what="nobody to be believed")
        assert answered(newest) == (None, "default", Reason.NO_REPLICA)


def test_new_settings_end_it(site: Site, settings: Any) -> None:
    """Also in the middle of a unit of work: the replica is none of the cluster's any more."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    site.wait_until_online()
    with routing_session():
        assert answered(newest)[2] is Reason.REPLICA
        assert held()
        settings.PGLB = {"default": {**settings.PGLB["default"], "REPLICAS": []}}
        assert answered(newest) == (None, "default", Reason.NO_REPLICA)


# --- When there is none ---


class Revealing(Nobody):
    """Acts for somebody whom it learns of in the course of a unit of work."""

    def __init__(self) -> None:
        self.found: tuple[Identity, ...] = ()

    def known(self) -> tuple[Identity, ...]:
        return self.found

    revealed = to_bind = known

    def is_settled(self) -> bool:
        return bool(self.found)


def test_none_before_it_is_known_who_asks(site: Site, read: Read) -> None:
    """As before the session middleware has run: every read asks again what binds this unit of work."""
    who = Revealing()
    with paused(site), open_routing(RoutingSession(who)):
        assert read()[2] is Reason.REPLICA
        assert not held()
        write_elsewhere()
        who.found = (WRITER,)
        assert read() == ("new", "default", Reason.BEHIND)


def test_write_while_it_is_found_out_who_asks_is_not_missed(site: Site, checker: BelievingChecker) -> None:
    """Another thread of this unit of work has written before the first read ran: the primary answers it."""

    class Writing(Nobody):
        def known(self) -> tuple[()]:
            if not current_decisions():
                in_thread(lambda: Entry.objects.create(text="new"))
            return ()

    with paused(site), open_routing(RoutingSession(Writing())):
        assert newest() == "new"
        assert current_decisions() == (DecisionCount("default", Reason.WRITE, 1), DecisionCount("default", Reason.WROTE, 1))


def test_replica_that_the_caller_names_is_no_choice(checker: BelievingChecker, read: Read) -> None:
    """It answers that read, and the unit of work goes on with its own."""
    with routing_session():
        alias = leased(read)
        (other,) = set(REPLICAS) - {alias}
        for _ in range(2):
            assert answered(lambda: Entry.objects.using(other).values_list("text", flat=True).first()) == (None, other, Reason.REPLICA)
            assert read() == (None, alias, Reason.REPLICA)


def test_relations_of_what_came_from_the_primary_are_read_there(site: Site, read: Read) -> None:
    """The router knows, whatever the other reads do."""
    with ignore_writes():
        entry = Entry.objects.create(text="new", author=Author.objects.create(name="ann"))
    entry = Entry.objects.using("default").get(pk=entry.pk)
    site.cluster.wait_until_replicas_caught_up()
    with routing_session():
        leased(read)
        assert answered(lambda: entry.author and entry.author.name) == ("ann", "default", Reason.INSTANCE)


def test_transaction_by_the_replicas_alias_suspends_it(checker: BelievingChecker, read: Read) -> None:
    """It is the primary's."""
    with routing_session():
        alias = leased(read)
        with transaction.atomic(using=alias):
            assert read() == (None, "default", Reason.TRANSACTION)
        assert read() == (None, alias, Reason.REPLICA)


def test_transaction_of_the_replicas_own_suspends_it(site: Site, checker: BelievingChecker, read: Read) -> None:
    """What use_replicas() has let be opened there, and leaves open, may have a snapshot of any age."""
    with routing_session(), ExitStack() as stack:
        alias = leased(read)
        with use_replicas():
            stack.enter_context(transaction.atomic(using=alias))
        assert read()[1:] == ("default", Reason.TRANSACTION)


@pytest.mark.parametrize("sql", ["SELECT 1 FROM guestbook_entry FOR UPDATE", "SELECT pg_advisory_lock(1)"])
def test_only_reads_go_by_it(site: Site, read: Read, sql: str) -> None:
    """A cursor of the replica has it, and the statement needs the primary, also where a replica would take it."""
    with routing_session():
        alias = leased(read)
        mark = site.log_end(alias)
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)
        assert current_decisions()[-1] == DecisionCount("default", Reason.WRITE, 1)
        assert site.statements(alias, mark) == []


def test_what_could_not_be_asked_of_its_replica_is_no_read_of_a_lease(site: Site, read: Read, settings: Any) -> None:
    """Whoever stands in is asked as always: the primary by no more readers than may ask it."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PRIMARY_FALLBACK_LIMIT": 1}}
    put_in_place(BelievingChecker())
    with routing_session():
        leased(read)
        connections.close_all()
        for replica in site.cluster.replicas:
            replica.kill()
        places = runtime.get_runtime().fallbacks_of("default")
        assert places is not None
        with places, pytest.raises(PrimaryProtected):
            read()
        assert read()[1] == "default"


def test_answers_of_the_router_follow_each_other(checker: BelievingChecker, read: Read) -> None:
    """One by a lease is the latest: what was answered before it says nothing of the statements after it."""
    entry = Entry()
    entry._state.db = "default"
    with routing_session():
        leased(read)
        assert router.db_for_read(Author, instance=entry) == "default"
        assert router.db_for_read(Entry) in REPLICAS
        assert answered(primarys_newest) == (None, "default", Reason.EXPLICIT)


def test_it_counts_among_the_reads_in_flight(site: Site, checker: BelievingChecker) -> None:
    """Until it ends, however it ends."""

    def read_for_long() -> None:
        try:
            with connections[alias].cursor() as cursor, pytest.raises(OperationalError, match="user request"):
                cursor.execute("SELECT pg_sleep(60)")
        finally:
            connections.close_all()

    def is_running() -> bool:
        return bool(site.host(alias).ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))

    with routing_session():
        alias = leased(lambda: answered(newest))
        thread = threading.Thread(target=copy_context().run, args=[read_for_long])
        thread.start()
        wait_until(is_running, timeout=30, what="the slow read to run")
        assert runtime.get_runtime().reads_in_flight(alias) == 1
        site.host(alias).ask("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        thread.join(30)
        assert runtime.get_runtime().reads_in_flight(alias) == 0
    assert not thread.is_alive()


# --- Failures ---


def test_connection_that_breaks_is_replaced(site: Site, read: Read) -> None:
    """By one to the other replica, as nobody has looked at this one since; the lease is the other one's from then on."""
    with routing_session():
        alias = leased(read)
        (other,) = set(REPLICAS) - {alias}
        site.host(alias).ask(TERMINATE)
        assert read() == (None, other, Reason.FAILOVER)
        assert leased(read) == other


def test_callers_own_error_is_raised_at_once(site: Site, read: Read) -> None:
    """Where it would be without a lease: nobody else is asked, nor this one again."""
    with routing_session():
        alias = leased(read)
        marks = {each: site.log_end(each) for each in ("default", *REPLICAS)}
        with connections[alias].cursor() as cursor, pytest.raises(DataError, match="division by zero"):
            cursor.execute("SELECT 1 / 0")
        assert current_decisions() == (DecisionCount(alias, Reason.REPLICA, 3),)
    assert {each: site.statements(each, mark) for each, mark in marks.items()} == {
        each: ["SELECT 1 / 0"] if each == alias else [] for each in marks
    }


def test_rows_of_a_server_side_cursor_come_from_another_host_if_none_was_delivered(site: Site, read: Read) -> None:
    """It was opened by a lease, and its connection breaks before the first fetch."""
    with ignore_writes():
        Entry.objects.create(text="new")
    site.cluster.wait_until_replicas_caught_up()
    with routing_session():
        alias = leased(read)
        (other,) = set(REPLICAS) - {alias}
        with connections[alias].chunked_cursor() as cursor:
            cursor.execute(NEWEST)
            site.host(alias).ask(TERMINATE)
            assert cursor.fetchone() == ("new",)
        assert read() == ("new", other, Reason.REPLICA)


def test_promotion_is_noticed(site: Site, checker: BelievingChecker) -> None:
    """The server says so by itself, with the read that was sent to it: the other replica answers."""
    with routing_session():
        alias = leased(lambda: answered(newest))
        (other,) = set(REPLICAS) - {alias}
        site.host(alias).promote()
        with site.host(alias).connect(dbname="site") as promoted:
            promoted.execute("INSERT INTO guestbook_entry (text, created) VALUES ('never on the primary', now())")
        assert answered(newest) == (None, other, Reason.FAILOVER)
        assert checker.reported == [alias]


# --- Proofs ---


def is_proving(site: Site, read: Read) -> bool:
    """Say whether the next read asks for a position."""
    marks = {alias: site.log_end(alias) for alias in REPLICAS}
    text, alias, reason = read()
    assert (text, reason) == ("new", Reason.REPLICA)
    (message,) = [message for message in site.statements(alias, marks[alias]) if "guestbook_entry" in message]
    return "pg_last_wal_replay_lsn" in message


def test_each_connection_proves_once(site: Site, read: Read) -> None:
    """The first read of a bound unit has a lease already, and its proof holds for its connection, not for the next one."""
    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=WRITER):
        assert is_proving(site, read)
        assert held()
        assert not is_proving(site, read)
        connections.close_all()
        assert is_proving(site, read)
        assert not is_proving(site, read)


def test_router_has_it_before_the_first_read_of_a_bound_unit(checker: BelievingChecker) -> None:
    """What binds it was asked first, and the cursor need not put that read through the rules again."""
    write_elsewhere()
    with routing_session(identity=WRITER):
        assert router.db_for_read(Entry) in REPLICAS
        assert held()


def test_each_read_behind_a_pooler_proves(site: Site, read: Read, settings: Any) -> None:
    """Nobody knows whom the next one will ask."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "REPLICAS": {alias: {"POOLED": True} for alias in REPLICAS}}}
    put_in_place(BelievingChecker())
    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=WRITER):
        assert [is_proving(site, read) for _ in range(3)] == [True] * 3
        assert held()


def test_empty_statement_proves_nothing(site: Site, read: Read) -> None:
    """It ran on a replica that is behind, without a proof, and the next one does not."""
    with paused(site):
        write_elsewhere()
        with routing_session(identity=WRITER):
            with connection_for_read().cursor() as cursor:
                cursor.execute("")
            assert held()
            assert read() == ("new", "default", Reason.BEHIND)


def test_stale_read_proves_nothing(site: Site, read: Read) -> None:
    """Also where a wrapper runs it in the context that has the lease."""
    with paused(site):
        write_elsewhere()
        with routing_session(identity=WRITER):
            alias = router.db_for_read(Entry)
            assert held()
            context = copy_context()
            with use_replicas(), connections[alias].execute_wrapper(context.run), connections[alias].cursor() as cursor:
                cursor.execute(NEWEST)
                assert cursor.fetchone() is None
            assert held()
            assert read() == ("new", "default", Reason.BEHIND)


def test_statement_before_it_on_its_cursor_says_nothing_of_it(site: Site, checker: BelievingChecker, settings: Any) -> None:
    """A write that binds nobody: the read after it is remembered as any read is."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    put_in_place(checker)

    def ask() -> str | None:
        cursor.execute(NEWEST)
        row = cursor.fetchone()
        return row and row[0]

    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(), connection_for_read().cursor() as cursor:
        leased(lambda: answered(ask))
        with ignore_writes():
            cursor.execute("INSERT INTO guestbook_author (name) VALUES ('ann')")
        assert held()
        assert is_proving(site, lambda: answered(ask))


def test_each_read_is_remembered_where_reads_are_monotonic(site: Site, read: Read, settings: Any) -> None:
    """Bound or not, it carries the question for what it has seen."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    put_in_place(BelievingChecker())
    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    for identity in (WRITER, ("test", "reader")):
        with routing_session(identity=identity):
            assert [is_proving(site, read) for _ in range(3)] == [True] * 3
            assert held()


def test_rules_are_not_asked_again(checker: BelievingChecker, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for a read that somebody watches."""
    with routing_session():
        alias = leased(read)
        monkeypatch.setattr(placement, "_decide", None)
        assert read() == (None, alias, Reason.REPLICA)
        with CaptureQueriesContext(connections[alias]):
            assert read() == (None, alias, Reason.REPLICA)


@pytest.mark.parametrize("identity", [WRITER, ("test", "reader")])
def test_what_is_proved_is_handed_to_psycopg_as_it_is(site: Site, read: Read, identity: Identity, monkeypatch: Any) -> None:
    """Of a bound unit from the second read on, of any other from the first: nothing that Django does with a statement is done."""
    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=identity):
        if identity is WRITER:
            read()
        monkeypatch.setattr(CursorWrapper, "_execute", None)
        assert read()[0] == "new"


def test_later_pointer_is_proved_again(site: Site, read: Read) -> None:
    """That the connection has shown an earlier one says nothing of it."""
    write_elsewhere("old")
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=WRITER):
        leased(read)
        with paused(site):
            with routing_session(pointer=write_elsewhere()):
                read()
            assert read() == ("new", "default", Reason.BEHIND)


def test_each_thread_proves_for_its_own_connection(site: Site, read: Read) -> None:
    """They share the unit of work and its lease."""
    write_elsewhere()
    site.cluster.wait_until_replicas_caught_up()
    seen = []
    with routing_session(identity=WRITER):
        assert read()[0] == "new"
        in_thread(lambda: seen.extend(is_proving(site, lambda: answered(newest)) for _ in range(2)))
        assert seen == [True, False]
        assert not is_proving(site, read)


# --- Who watches ---


def test_who_puts_a_function_in_the_place_of_djangos_sees_every_read(checker: BelievingChecker, read: Read, monkeypatch: Any) -> None:
    """As monitoring libraries do, some of which keep the name and the module of the function."""
    seen = []
    djangos = CursorWrapper.execute

    @functools.wraps(djangos)
    def execute(self: CursorWrapper, sql: Any, params: Any = None) -> Any:
        seen.append(sql)
        return djangos(self, sql, params)

    with routing_session():
        leased(read)
        monkeypatch.setattr(CursorWrapper, "execute", execute)
        read()
        assert held()
    assert len(seen) == 1


def test_function_in_the_place_of_djangos_is_told_from_it() -> None:
    """Also one that was there before us, and looks like Django's."""
    djangos = CursorWrapper.execute

    @functools.wraps(djangos)
    def execute(self: CursorWrapper, sql: Any, params: Any = None) -> Any: ...

    assert if_djangos(djangos) is djangos
    assert if_djangos(execute) is None
    assert if_djangos(functools.partial(djangos)) is None


def test_wrapper_sees_every_read_and_may_change_it(checker: BelievingChecker, read: Read) -> None:
    """One that is installed under a lease, too."""

    def other(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute("SELECT 'other'", None, many, context)

    with routing_session():
        alias = leased(read)
        with connections[alias].execute_wrapper(other):
            assert read() == ("other", alias, Reason.REPLICA)
        assert read() == (None, alias, Reason.REPLICA)


def test_query_log_has_every_read(checker: BelievingChecker, read: Read, settings: Any) -> None:
    """Of a context that captures, and under DEBUG."""
    with routing_session():
        alias = leased(read)
        with CaptureQueriesContext(connections[alias]) as captured:
            read()
        assert len(captured) == 1
        settings.DEBUG = True
        before = len(connections[alias].queries_log)
        read()
        assert len(connections[alias].queries_log) == before + 1


def test_read_while_apps_are_loaded_is_warned_of(checker: BelievingChecker, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Django."""
    with routing_session():
        leased(read)
        monkeypatch.setattr(apps, "ready", False)
        with pytest.warns(RuntimeWarning, match="during app initialization"):
            read()


@pytest.mark.parametrize("alias", ["default", *REPLICAS])
def test_cursor_can_be_wrapped_as_any_of_djangos(checker: BelievingChecker, alias: str) -> None:
    """The debug toolbar makes a class of the cursor's and its own, gives it Django's two arguments, and looks at the connection first."""
    seen = []

    class Watching:
        def execute(self, sql: Any, params: Any = None) -> Any:
            seen.append(self.db.connection.info.dbname)  # type: ignore[attr-defined]
            return super().execute(sql, params)  # type: ignore[misc]

    connections.close_all()
    with routing_session():
        cursor = connections[alias].cursor()
        with type("Wrapper", (Watching, type(cursor)), {})(cursor.cursor, connections[alias]) as wrapper:
            for _ in range(2):
                wrapper.execute(NEWEST)
                assert wrapper.fetchone() is None
        expected = Reason.EXPLICIT if alias == "default" else Reason.REPLICA
        assert current_decisions() == (DecisionCount(alias, expected, 2),)
    assert seen == ["site", "site"]
