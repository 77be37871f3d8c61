"""Transactions that are opened on a replica's alias: they are the primary's, and inside `use_replicas()` the replica's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import (
    DatabaseError,
    IntegrityError,
    InternalError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
    transaction,
)
from django.http import HttpRequest, JsonResponse
from django.test import Client, override_settings
from django.urls import path

from django_pglb import current_decisions, routing_session, use_primary, use_replicas
from django_pglb.core.decision import Reason

from .corners.models import Book, Publication, Reader, Remark
from .corners.test_gone_aliases import with_aliases
from .fix_site import Served, Site

REPLICA = "replica1"
WRITER = ("test", "writer")
Unit = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(params=["unit", "outside"])
def unit(request: pytest.FixtureRequest, site: Site) -> Unit:
    """Opens a unit of work, or none."""
    return routing_session if request.param == "unit" else nullcontext


@pytest.fixture(params=[REPLICA, "default"])
def alias(request: pytest.FixtureRequest) -> str:
    """An alias of the cluster: what holds for one holds for all."""
    return str(request.param)


def names() -> list[str]:
    """Return what is committed on the primary, as another connection sees it."""
    asked = connections.create_connection("default")
    try:
        with asked.cursor() as cursor:
            cursor.execute("SELECT name FROM corners_reader ORDER BY name")
            return [name for (name,) in cursor.fetchall()]
    finally:
        asked.close()


def add(name: str, alias: str = REPLICA) -> Reader:
    return Reader.objects.using(alias).create(name=name)


def where() -> set[tuple[str, Reason]]:
    return {(decision.alias, decision.reason) for decision in current_decisions()}


@pytest.fixture
def paused(site: Site) -> Iterator[Site]:
    """The site with replicas that get nothing of what follows."""
    site.pause_replay()
    yield site
    site.resume_replay()


# --- Commit and rollback ---


def test_it_is_committed_as_one(unit: Unit, alias: str) -> None:
    """Nobody sees a part of it before its end."""
    with unit():
        with transaction.atomic(using=REPLICA):
            add("ann", alias)
            add("bob", alias)
            assert names() == []
        assert names() == ["ann", "bob"]


def test_it_is_rolled_back_as_one(unit: Unit, alias: str) -> None:
    """What was written by any alias of the cluster."""
    with unit():
        with suppress(ValueError), transaction.atomic(using=REPLICA):
            add("ann", alias)
            with connections[alias].cursor() as cursor:
                cursor.execute("INSERT INTO corners_reader (name) VALUES ('bob')")
            raise ValueError
        assert names() == []


def test_it_reads_what_it_has_written(paused: Site, alias: str) -> None:
    """On the primary, while no replica has it."""
    with routing_session(), transaction.atomic(using=REPLICA):
        add("ann")
        assert Reader.objects.using(alias).get().name == "ann"
        assert Reader.objects.get().name == "ann"
        assert where() - {("default", Reason.WRITE)} == {("default", Reason.TRANSACTION)}


def test_it_reads_from_the_primary_from_its_beginning(paused: Site, alias: str) -> None:
    """What it reads is what it decides by."""
    Reader.objects.create(name="ann")
    with routing_session(), transaction.atomic(using=REPLICA):
        assert Reader.objects.using(alias).count() == 1
        assert Reader.objects.count() == 1
        assert where() == {("default", Reason.TRANSACTION)}


def test_afterwards_reads_are_on_replicas_again(site: Site) -> None:
    """Nothing is left of it."""
    with routing_session():
        with transaction.atomic(using=REPLICA):
            pass
        assert Reader.objects.count() == 0
        assert {(alias == "default", reason) for alias, reason in where()} == {(False, Reason.REPLICA)}


@pytest.mark.parametrize("outer", [REPLICA, "replica2", "default"])
@pytest.mark.parametrize("inner", [REPLICA, "replica2", "default"])
def test_blocks_of_all_aliases_nest(unit: Unit, outer: str, inner: str) -> None:
    """As on one: what the inner one undoes is gone, what the outer one has done stays, and nothing is committed before its end."""
    with unit():
        with transaction.atomic(using=outer):
            add("ann", inner)
            with suppress(IntegrityError), transaction.atomic(using=inner):
                add("bob", outer)
                add("ann", outer)
            with transaction.atomic(using=inner, savepoint=False):
                add("cid", outer)
            assert names() == []
        assert names() == ["ann", "cid"]
        with suppress(ValueError), transaction.atomic(using=outer):
            with transaction.atomic(using=inner):
                add("dan", inner)
            raise ValueError
        assert names() == ["ann", "cid"]


@pytest.mark.parametrize(("outer", "inner"), [(REPLICA, "default"), ("default", REPLICA)])
def test_error_in_a_block_without_savepoint_undoes_the_one_around(unit: Unit, outer: str, inner: str) -> None:
    """Whichever alias they name."""
    with unit():
        with transaction.atomic(using=outer):
            add("ann", outer)
            with suppress(ValueError), transaction.atomic(using=inner, savepoint=False):
                raise ValueError
            assert transaction.get_rollback(using=outer)
            with pytest.raises(transaction.TransactionManagementError):
                Reader.objects.using(inner).count()
        assert names() == []


@pytest.mark.parametrize(("outer", "inner"), [(REPLICA, "default"), ("default", REPLICA)])
def test_durable_block_is_outermost(unit: Unit, outer: str, inner: str) -> None:
    """Among those of all aliases."""
    with unit(), transaction.atomic(using=outer), pytest.raises(RuntimeError, match="durable"):
        transaction.atomic(using=inner, durable=True).__enter__()


# --- The rest of Django's interface ---


def test_savepoints_by_hand(unit: Unit) -> None:
    """Are the primary's."""
    with unit():
        with transaction.atomic(using=REPLICA):
            add("ann")
            create = getattr(transaction, "savepoint_create", transaction.savepoint)  # its new name in Django 6.1
            undone = create(using=REPLICA)
            add("bob")
            transaction.savepoint_rollback(undone, using=REPLICA)
            kept = create(using="default")
            add("cid")
            transaction.savepoint_commit(kept, using=REPLICA)
            transaction.clean_savepoints(using=REPLICA)
        assert names() == ["ann", "cid"]


def test_rollback_that_is_asked_for(unit: Unit, alias: str) -> None:
    """By either alias, without an exception."""
    with unit():
        with transaction.atomic(using=REPLICA):
            add("ann")
            assert not transaction.get_rollback(using=alias)
            transaction.set_rollback(True, using=alias)
        assert names() == []


def test_state_is_told_by_every_alias(unit: Unit) -> None:
    """What the connections say of the block is true of both."""
    replica = connections[REPLICA]
    with unit():
        for using in (REPLICA, "default"):
            with transaction.atomic(using=using) as _:
                assert (replica.in_atomic_block, connection.in_atomic_block) == (True, True)
                assert (transaction.get_autocommit(using=REPLICA), transaction.get_autocommit()) == (False, False)
                with pytest.raises(transaction.TransactionManagementError):
                    replica.set_autocommit(True)
                with pytest.raises(transaction.TransactionManagementError):
                    transaction.commit(using=REPLICA)
            assert (replica.in_atomic_block, connection.in_atomic_block) == (False, False)
            assert (transaction.get_autocommit(using=REPLICA), transaction.get_autocommit()) == (True, True)


@pytest.mark.parametrize(("using", "hook"), [(REPLICA, "default"), ("default", REPLICA), (REPLICA, "replica2")])
def test_hooks_run_after_the_commit(unit: Unit, using: str, hook: str) -> None:
    """Of the transaction, whichever alias registered them; those of what was undone never do."""
    ran: list[list[str]] = []
    with unit():
        with transaction.atomic(using=using):
            transaction.on_commit(lambda: ran.append(names()), using=hook)
            add("ann", using)
            with suppress(ValueError), transaction.atomic(using=hook):
                transaction.on_commit(lambda: ran.append(["never"]), using=using)
                raise ValueError
            assert ran == []
        assert ran == [["ann"]]
        with suppress(ValueError), transaction.atomic(using=using):
            transaction.on_commit(lambda: ran.append(["never"]), using=hook)
            raise ValueError
        transaction.on_commit(lambda: ran.append(["at once"]), using=hook)
        assert ran == [["ann"], ["at once"]]


def test_hook_reads_and_binds(paused: Site) -> None:
    """What it writes is the unit's own, and so is what was committed."""
    seen: list[int] = []

    def announce() -> None:
        seen.append(Reader.objects.count())
        add("bob")

    with routing_session(identity=WRITER), transaction.atomic(using=REPLICA):
        add("ann")
        transaction.on_commit(announce, using=REPLICA)
    assert seen == [1]
    with routing_session(identity=WRITER):
        assert Reader.objects.count() == 2
        assert where() == {("default", Reason.BEHIND)}


def test_autocommit_off(unit: Unit, alias: str) -> None:
    """By the replica's alias it is off on the primary, which commits and rolls back."""
    with unit():
        transaction.set_autocommit(False, using=REPLICA)
        try:
            add("ann", alias)
            assert names() == []
            transaction.commit(using=REPLICA)
            assert names() == ["ann"]
            add("bob", alias)
            transaction.rollback(using=alias)
            with transaction.atomic(using=REPLICA):
                add("cid", alias)
            assert names() == ["ann"]
            transaction.commit(using=REPLICA)
        finally:
            transaction.set_autocommit(True, using=REPLICA)
        assert names() == ["ann", "cid"]
        assert transaction.get_autocommit()


def test_row_can_be_locked(unit: Unit) -> None:
    """`select_for_update()` on the replica's alias asks its connection whether a transaction is open."""
    Reader.objects.create(name="ann")
    with unit():
        with transaction.atomic(using="default"):
            assert Reader.objects.using(REPLICA).select_for_update().get().name == "ann"
        with transaction.atomic(using=REPLICA):
            assert Reader.objects.select_for_update().get().name == "ann"
        with pytest.raises(transaction.TransactionManagementError):
            list(Reader.objects.using(REPLICA).select_for_update())


def test_lock_is_granted_once(unit: Unit) -> None:
    """An advisory lock in a block on a replica's alias is the primary's."""
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(38)")
        with unit(), transaction.atomic(using=REPLICA), connections[REPLICA].cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(38)")
            assert cursor.fetchone() == (False,)
    finally:
        other.close()


# --- Django's own blocks ---


@pytest.fixture
def remarked(site: Site) -> Publication:
    """A publication with two remarks, from a replica."""
    Book.objects.create(title="News", pages=1)
    news = Publication.objects.get()
    for text in "ab":
        news.remarks.create(text=text)
    site.wait_until_seen()
    return Publication.objects.using("default").get()


def delete(news: Publication) -> None:
    news.remarks.all().delete()


def bulk_update(news: Publication) -> None:
    remarks = list(news.remarks.all())
    for remark in remarks:
        remark.text += "!"
    news.remarks.all().bulk_update(remarks, ["text"])


def update_or_create(news: Publication) -> None:
    news.remarks.all().update_or_create(text="a", defaults={"text": "a!"})


def get_or_create(news: Publication) -> None:
    news.remarks.all().get_or_create(text="c", defaults={"content_type_id": content_type(news), "object_id": news.pk})


def update(news: Publication) -> None:
    news.remarks.all().update(text="!")


def update_parent(news: Publication) -> None:
    Book.objects.using(news._state.db).update(title="a!", pages=2)


def content_type(news: Publication) -> int:
    return int(Remark.objects.using("default").all()[0].content_type_id)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (delete, []),
        (bulk_update, ["a!", "b!"]),
        (update_or_create, ["a!", "b"]),
        (get_or_create, ["a", "b", "c"]),
        (update, ["!", "!"]),
        (update_parent, ["a", "b"]),
    ],
)
def test_what_a_generic_relation_of_a_replicas_object_does(
    remarked: Publication, paused: Site, unit: Unit, change: Callable[[Publication], None], texts: list[str]
) -> None:
    """Its QuerySet is bound to the alias for reads, and what it does is done on the primary."""
    with unit():
        news = Publication.objects.using(REPLICA).get()
        news._state.db = REPLICA
        change(news)
    assert sorted(Remark.objects.using("default").values_list("text", flat=True)) == texts


@pytest.fixture
def stale(site: Site, remarked: Publication) -> Iterator[Publication]:
    """The same, as the replica has it, whereas there is one more remark on the primary."""
    with routing_session():
        news = Publication.objects.using(REPLICA).get()
    assert news._state.db == REPLICA
    site.pause_replay()
    remarked.remarks.create(text="c")
    yield news
    site.resume_replay()


def test_look_up_of_a_write_is_on_the_primary(stale: Publication) -> None:
    """A relation that is bound to a replica's alias finds there what the replica has not got, and makes nothing twice."""
    with routing_session():
        assert stale.remarks.count() == 2
        remark, created = stale.remarks.all().get_or_create(text="c")
        assert (created, remark._state.db) == (False, "default")
        assert stale.remarks.get_or_create(text="c")[1] is False
        assert stale.remarks.all().update_or_create(text="c", defaults={"text": "d"})[1] is False
        assert Remark.objects.using(REPLICA).get_or_create(text="d")[1] is False
    assert sorted(Remark.objects.using("default").values_list("text", flat=True)) == ["a", "b", "d"]


def test_all_rows_are_deleted_and_changed(stale: Publication) -> None:
    """Also those that the replica has not got."""
    with routing_session():
        assert stale.remarks.all().update(text="x") == 3
        assert stale.remarks.all().delete()[0] == 3
    assert Remark.objects.using("default").count() == 0


def test_what_depends_on_a_deleted_object_goes_with_it(stale: Publication) -> None:
    """Also what the replica has not got, which PostgreSQL would not leave without its object."""
    Publication.objects.using("default").update(editor=Reader.objects.create(name="ann"))
    with routing_session():
        ann = Reader(pk=Reader.objects.using("default").get().pk)
        assert Publication.objects.using(REPLICA).get().editor_id is None
        ann.delete(using=stale._state.db)
    assert (Publication.objects.using("default").count(), Remark.objects.using("default").count()) == (0, 0)


def test_subquery_of_a_write_may_name_a_replica(stale: Publication) -> None:
    """It is part of one statement, which runs on the primary."""
    with routing_session():
        assert stale.remarks.filter(pk__in=stale.remarks.filter(text__in="ac")).update(text="x") == 2
        assert stale.remarks.exclude(pk__in=Remark.objects.using("replica2").filter(text="x")).delete()[0] == 1
    assert Remark.objects.using("default").count() == 2


def test_subquery_may_name_a_replica_that_is_not_asked(stale: Publication) -> None:
    """It is answered where the query is, now and later."""
    with routing_session():
        query = Remark.objects.filter(pk__in=stale.remarks.all())
        assert query.all().count() == 2
        Reader.objects.create(name="ann")
        assert query.all().count() == 3
        with transaction.atomic(using=REPLICA):
            assert query.all().count() == 3
    with routing_session():
        assert query.all().count() == 2


def test_prefetched_relation_makes_nothing_twice(paused: Site) -> None:
    """It is bound to where it was read."""
    paused.resume_replay()
    Reader.objects.create(name="ann")
    paused.pause_replay()
    with routing_session():
        ann = Reader.objects.prefetch_related("publications").get()
        Publication.objects.using("default").create(title="News", editor_id=ann.pk)
    with routing_session():
        assert ann.publications.get_or_create(title="News")[1] is False
        assert ann.publications.all().get_or_create(title="News")[1] is False


def test_block_by_the_alias_of_an_instance(remarked: Publication, unit: Unit) -> None:
    """What fails in it leaves nothing behind."""
    with unit():
        news = Publication.objects.using(REPLICA).get()
        news._state.db = REPLICA
        with suppress(IntegrityError), transaction.atomic(using=news._state.db):
            news.title = "Olds"
            news.save()
            add("ann", "default")
            add("ann", "default")
        assert Publication.objects.using("default").get().title == "News"
        assert names() == []


# --- When the primary goes away ---


@pytest.mark.parametrize("pool", [False, True])
def test_connection_that_is_closed_in_it(unit: Unit, pool: bool) -> None:
    """Is rolled back by the server, and made anew by whoever needs it next, on each alias."""
    changed = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2}} if pool else {}, "CONN_MAX_AGE": 0}
    before = {key: connection.settings_dict[key] for key in changed}
    connection.close()
    connection.settings_dict.update(changed)
    try:
        with unit():
            with suppress(DatabaseError), transaction.atomic(using=REPLICA):
                add("ann")
                connection.close()
                add("bob")
            with transaction.atomic(using=REPLICA):
                add("cid")
            assert names() == ["cid"]
            assert Reader.objects.using(REPLICA).filter(name="cid").exists()
    finally:
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's
        connection.settings_dict.update(before)


def test_connection_that_breaks_in_it(site: Site, unit: Unit) -> None:
    """Is an error there, and none afterwards."""

    def break_and_add() -> None:
        add("ann")
        assert site.host("default").ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
        add("bob")

    with unit():
        with pytest.raises(OperationalError), transaction.atomic(using=REPLICA):
            break_and_add()
        add("cid")
        assert names() == ["cid"]


def test_it_needs_the_primary(site: Site, unit: Unit) -> None:
    """While that is down, it cannot be opened; inside use_replicas() it can."""
    connections.close_all()
    site.cluster.primary.stop("immediate")
    with unit():
        with pytest.raises(OperationalError), transaction.atomic(using=REPLICA):
            pass
        with use_replicas(), transaction.atomic(using=REPLICA):
            assert Reader.objects.using(REPLICA).count() == 0
    site.cluster.primary.start()
    with unit(), transaction.atomic(using=REPLICA):
        add("ann")
    assert names() == ["ann"]


def test_own_connection_of_the_alias_is_left_alone(site: Site) -> None:
    """It is neither opened for a transaction nor ended with it, and what ends a request does not ask the primary."""
    with routing_session():
        assert Reader.objects.using(REPLICA).count() == 0
    before = connections[REPLICA].connection
    with transaction.atomic(using=REPLICA):
        add("ann")
    assert connections[REPLICA].connection is before is not None
    assert before.autocommit
    connection.close()
    close_old_connections()
    assert connection.connection is None


# --- Inside use_replicas() ---


def test_inside_use_replicas_it_is_the_replicas(paused: Site) -> None:
    """With what the replica has, and one snapshot of it if that is asked for."""
    Reader.objects.create(name="ann")
    with use_replicas(), transaction.atomic(using=REPLICA):
        assert (connections[REPLICA].in_atomic_block, connection.in_atomic_block) == (True, False)
        with connections[REPLICA].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SET LOCAL work_mem = '8MB'")
        assert Reader.objects.using(REPLICA).count() == 0
        paused.resume_replay()
        paused.cluster.replicas[0].wait_until_caught_up()
        with transaction.atomic(using=REPLICA):
            assert Reader.objects.using(REPLICA).count() == 0
        assert where() == {(REPLICA, Reason.STALE_ALLOWED)}
    assert not connections[REPLICA].in_atomic_block


def insert() -> None:
    add("ann")


def lock() -> None:
    with connections[REPLICA].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(38)")


def lock_rows() -> None:
    list(Reader.objects.using(REPLICA).select_for_update())


def call() -> None:
    with connections[REPLICA].cursor() as cursor:
        cursor.callproc("pg_notify", ["channel", "payload"])


def set_for_good() -> None:
    with connections[REPLICA].cursor() as cursor:
        cursor.execute("SET work_mem = '8MB'")


def hide_behind_a_setting() -> None:
    with connections[REPLICA].cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '8MB'; SELECT pg_try_advisory_lock(38)")


def many() -> None:
    with connections[REPLICA].cursor() as cursor:
        cursor.executemany("INSERT INTO corners_reader (name) VALUES (%s)", [("ann",)])


def copy() -> None:
    with connections[REPLICA].cursor() as cursor, cursor.copy("COPY corners_reader (name) FROM STDIN") as rows:
        rows.write_row(["ann"])


@pytest.mark.parametrize("refused", [insert, lock, lock_rows, call, set_for_good, hide_behind_a_setting, many, copy])
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_is_no_read_is_refused_there(site: Site, refused: Callable[[], None], *, by_hand: bool) -> None:
    """Before it is sent anywhere, with what to do, and the transaction goes on."""
    connections[REPLICA].ensure_connection()
    marks = {alias: site.log_end(alias) for alias in ("default", REPLICA)}
    with use_replicas(), ExitStack() as stack:
        if by_hand:
            transaction.set_autocommit(False, using=REPLICA)
            stack.callback(transaction.set_autocommit, True, using=REPLICA)
            stack.callback(transaction.rollback, using=REPLICA)
        else:
            stack.enter_context(transaction.atomic(using=REPLICA))
        # As every error, one of a save is for the innermost block to undo.
        with pytest.raises(InternalError, match=r"use_replicas"), nullcontext() if by_hand else transaction.atomic(using=REPLICA):
            refused()
        assert Reader.objects.using(REPLICA).count() == 0
    sent = [text for alias, mark in marks.items() for text in site.statements(alias, mark)]
    assert not [
        text for text in sent if "COUNT" not in text and not text.startswith(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"))
    ]
    assert names() == []


def test_use_replicas_does_not_leave_a_transaction(paused: Site, alias: str) -> None:
    """Entered while one is open on the primary, by whichever alias, it changes nothing: blocks in it are that transaction's."""
    with suppress(ValueError), transaction.atomic(using=alias):
        add("ann")
        with use_replicas():
            assert Reader.objects.using(REPLICA).count() == 1
            with transaction.atomic(using=REPLICA):
                add("bob")
                assert Reader.objects.using(REPLICA).count() == 2
            assert connections[REPLICA].in_atomic_block
            assert where() - {("default", Reason.WRITE)} == {("default", Reason.TRANSACTION)}
        raise ValueError
    assert names() == []


def test_block_that_outlasts_use_replicas(paused: Site) -> None:
    """It stays the replica's, takes no writes, and what is read outside use_replicas() is read on the primary."""
    Reader.objects.create(name="ann")
    with ExitStack() as stack, routing_session():
        with use_replicas():
            stack.enter_context(transaction.atomic(using=REPLICA))
            assert Reader.objects.using(REPLICA).count() == 0
        assert connections[REPLICA].in_atomic_block
        assert Reader.objects.using(REPLICA).count() == 1
        with use_primary():
            assert Reader.objects.using(REPLICA).count() == 1
        with pytest.raises(InternalError, match="use_replicas"):
            connections[REPLICA].cursor().execute("DELETE FROM corners_reader")
        assert where() == {(REPLICA, Reason.STALE_ALLOWED), ("default", Reason.TRANSACTION)}
    assert not connections[REPLICA].in_atomic_block
    assert connections[REPLICA].autocommit


def test_block_that_ends_inside_use_replicas(site: Site) -> None:
    """One of the primary's is committed there, wherever it ends."""
    block, stale = transaction.atomic(using=REPLICA), use_replicas()
    block.__enter__()
    add("ann")
    with stale:
        block.__exit__(None, None, None)
        assert names() == ["ann"]
    assert (connection.in_atomic_block, transaction.get_autocommit()) == (False, True)
    assert (connections[REPLICA].in_atomic_block, transaction.get_autocommit(using=REPLICA)) == (False, True)


def test_block_on_the_primary_inside_one_of_a_replica(site: Site) -> None:
    """Inside use_replicas() they are two transactions, as they were always."""
    with use_replicas(), suppress(ValueError), transaction.atomic(using=REPLICA):
        with transaction.atomic():
            add("ann", "default")
        assert names() == ["ann"]
        raise ValueError
    assert names() == ["ann"]


# --- ATOMIC_REQUESTS ---


@pytest.fixture(params=[("default", REPLICA, "replica2"), (REPLICA,), (REPLICA, "default")], ids="+".join)
def atomic_requests(request: pytest.FixtureRequest, site: Site) -> Iterator[None]:
    """Set for several aliases of the cluster, as settings that they share have it."""
    before = {alias: connections.settings[alias]["ATOMIC_REQUESTS"] for alias in request.param}
    for alias in before:
        connections.settings[alias]["ATOMIC_REQUESTS"] = True
    connections.close_all()
    yield
    for alias, value in before.items():
        connections.settings[alias]["ATOMIC_REQUESTS"] = value
    connections.close_all()


def visit(client: Client, page: Callable[[HttpRequest], JsonResponse], method: str = "get") -> Any:
    with override_settings(ROOT_URLCONF=(path("page/", page),)):
        return getattr(client, method)("/page/")


def count_readers(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"count": Reader.objects.count()})


@pytest.mark.usefixtures("atomic_requests")
def test_page_that_only_reads_is_read_from_a_replica(site: Site) -> None:
    """And asks the primary nothing."""
    mark = site.log_end("default")
    response = visit(Client(), count_readers)
    assert Served(response).reasons == {Reason.REPLICA}
    assert site.statements("default", mark) == []


@pytest.mark.usefixtures("atomic_requests")
def test_page_that_only_reads_needs_no_primary(site: Site) -> None:
    """It is answered while that is down."""
    site.cluster.primary.stop("immediate")
    response = visit(Client(), count_readers)
    assert Served(response).reasons == {Reason.REPLICA}
    assert (connection.in_atomic_block, connections[REPLICA].in_atomic_block) == (False, False)


@pytest.mark.usefixtures("atomic_requests")
def test_next_page_of_a_writer_is_no_error(paused: Site) -> None:
    """While no replica has the write: the primary answers it."""

    def write(request: HttpRequest) -> JsonResponse:
        add("ann", "default")
        return JsonResponse({})

    client = Client()
    visit(client, write, "post")
    response = visit(client, count_readers)
    assert response.json() == {"count": 1}
    assert Served(response).reasons == {Reason.BEHIND}


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("method", ["get", "post"])
def test_view_is_one_transaction(site: Site, method: str) -> None:
    """Rolled back if it raises or says so, and blocks that it opens itself are savepoints of it."""

    def write(request: HttpRequest) -> JsonResponse:
        Reader.objects.count()
        add("ann", "default")
        with suppress(IntegrityError), transaction.atomic():
            add("bob", "default")
            add("ann", "default")
        with suppress(IntegrityError), transaction.atomic(using=REPLICA):
            add("bob", REPLICA)
            add("ann", REPLICA)
        assert names() == []
        return JsonResponse({})

    def fail(request: HttpRequest) -> JsonResponse:
        add("cid", "default")
        raise ValueError

    def regret(request: HttpRequest) -> JsonResponse:
        add("cid", "default")
        transaction.set_rollback(True, using=REPLICA)
        return JsonResponse({})

    visit(Client(), write, method)
    with pytest.raises(ValueError, match=r"^$"):
        visit(Client(), fail, method)
    visit(Client(), regret, method)
    assert names() == ["ann"]
    assert (connection.in_atomic_block, transaction.get_autocommit()) == (False, True)


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("method", ["get", "post"])
def test_view_without_a_block(site: Site, method: str) -> None:
    """`@non_atomic_requests` names the primary alone, and means its replicas, too."""

    @transaction.non_atomic_requests
    def write(request: HttpRequest) -> JsonResponse:
        assert not connection.in_atomic_block
        with transaction.atomic(durable=True):
            add("ann", "default")
        with suppress(IntegrityError), transaction.atomic(using=REPLICA):
            add("bob", REPLICA)
            add("ann", REPLICA)
        assert names() == ["ann"]
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        visit(Client(), write, method)
    assert names() == ["ann"]


# --- Threads ---


def test_transaction_in_a_thread_of_asynchronous_code(paused: Site) -> None:
    """The primary's connection of that thread has it."""

    def write() -> None:
        with suppress(IntegrityError), transaction.atomic(using=REPLICA):
            add("ann")
            add("ann")
        with transaction.atomic(using=REPLICA):
            add("bob")
            assert Reader.objects.using(REPLICA).count() == 1

    async def main() -> None:
        async with routing_session():
            await sync_to_async(write)()
            assert await Reader.objects.using(REPLICA).acount() == 1
            assert (await Reader.objects.using(REPLICA).aget_or_create(name="bob"))[1] is False

    asyncio.run(main())
    assert names() == ["bob"]


def test_error_of_a_save_by_the_alias_breaks_the_block(unit: Unit) -> None:
    """Whichever alias either of them names: nothing is asked in it any more, and nothing of it is committed."""
    with unit():
        add("ann")
        for block, save in (("default", REPLICA), (REPLICA, "default")):
            with transaction.atomic(using=block):
                add("bob", block)
                with pytest.raises(IntegrityError):
                    Reader(name="ann").save(using=save)
                with pytest.raises(transaction.TransactionManagementError):
                    Reader.objects.using(save).count()
        assert names() == ["ann"]


@pytest.mark.parametrize("alias", [REPLICA, "default"])
def test_switched_off_it_is_the_primarys_too(site: Site, settings: Any, alias: str) -> None:
    """A replica's alias is the primary then, and in use_replicas() as well."""
    settings.PGLB_ENABLED = False
    with suppress(ValueError), transaction.atomic(using=REPLICA):
        add("ann", alias)
        raise ValueError
    with use_replicas(), transaction.atomic(using=alias):
        add("bob")
        assert names() == []
    assert names() == ["bob"]


def test_switched_off_with_another_engine_it_is_that_engines_own(site: Site, settings: Any) -> None:
    """Who develops without replicas may have Django's own there."""
    settings.PGLB_ENABLED = False
    plain = {**connections.settings["default"], "ENGINE": "django.db.backends.postgresql"}
    with with_aliases({REPLICA: plain}):
        assert Reader.objects.using(REPLICA).get_or_create(name="ann")[1] is True
        with suppress(ValueError), transaction.atomic(using=REPLICA):
            add("bob")
            assert not connection.in_atomic_block
            raise ValueError
        assert Reader.objects.using(REPLICA).get().delete(using=REPLICA)[0] == 1
    assert names() == []
