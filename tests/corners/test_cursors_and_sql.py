"""Server-side cursors and SQL of one's own, and what is not in the rows: temporary tables, locks, notifications."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, InternalError, ProgrammingError, connection, connections, router, transaction
from django.db.models import BooleanField, F, Func, IntegerField, Value
from django.db.models.functions import Length

from django_pglb import use_primary
from django_pglb.core.decision import Reason

from ..fix_routed import REPLICAS, Routed
from .models import Publication, Reader, Scratch

TITLES = "SELECT id, title FROM corners_publication ORDER BY id"
LOCK = 20


@pytest.fixture
def three(routed: Routed) -> None:
    """Three publications that the replicas have."""
    Publication.objects.bulk_create([Publication(title=title) for title in "abc"])
    routed.lag()


def iterated() -> list[str]:
    return [publication.title for publication in Publication.objects.order_by("pk").iterator(chunk_size=2)]


@pytest.mark.usefixtures("three")
def test_server_side_cursor_on_a_replica(routed: Routed) -> None:
    """iterator() outside a transaction, in several fetches, all on one replica."""
    marks = {alias: routed.site.log_end(alias) for alias in REPLICAS}
    with routed.unit():
        assert iterated() == ["a", "b", "c"]
        routed.assert_reads(REPLICAS, Reason.REPLICA)
    fetches = {alias: [text for text in routed.site.statements(alias, marks[alias]) if "FETCH" in text] for alias in REPLICAS}
    assert sorted(len(texts) > 1 for texts in fetches.values()) == [False, True]


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the new row is missing", raises=AssertionError)
def test_server_side_cursor_after_a_write(routed: Routed) -> None:
    """In the unit of work that wrote, and in the next one of whoever wrote."""
    with routed.unit("ann"):
        Publication.objects.create(title="d")
        assert iterated() == ["a", "b", "c", "d"]
        routed.assert_reads("default", Reason.WROTE)
    with routed.unit("ann"):
        assert iterated() == ["a", "b", "c", "d"]
        routed.assert_reads("default", Reason.BEHIND)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the transaction's own row is missing", raises=AssertionError)
def test_server_side_cursor_in_a_transaction(routed: Routed) -> None:
    """It is on the transaction's connection, and sees what it wrote."""
    with routed.unit(), transaction.atomic():
        Publication.objects.create(title="d")
        assert iterated() == ["a", "b", "c", "d"]
        routed.assert_reads("default", Reason.TRANSACTION)


@pytest.mark.usefixtures("three")
def test_server_side_cursor_goes_on_where_it_began(routed: Routed) -> None:
    """Writing while one iterates moves the reads that follow to the primary, and leaves the cursor on its replica."""
    with routed.unit():
        for publication in Publication.objects.order_by("pk").iterator(chunk_size=1):
            publication.summary = publication.title.upper()
            publication.save()
        assert [found.summary for found in Publication.objects.using("default").order_by("pk")] == ["A", "B", "C"]
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.WROTE)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the new row is missing", raises=AssertionError)
def test_what_raw_sql_wrote_is_read(routed: Routed) -> None:
    """connection.cursor() asks no router, and its writes are noticed all the same."""
    with routed.unit("ann"):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO corners_publication (title, summary) VALUES ('d', '')")
        assert Publication.objects.count() == 4
        routed.assert_reads("default", Reason.WROTE)
    with routed.unit("ann"):
        assert Publication.objects.count() == 4
        routed.assert_reads("default", Reason.BEHIND)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the new row is missing", raises=AssertionError)
def test_cursor_of_the_alias_that_the_router_names(routed: Routed) -> None:
    """As libraries find a connection for a query of their own; it obeys the rules for as long as it is used."""
    with routed.unit():
        with connections[router.db_for_read(Publication)].cursor() as cursor:
            cursor.execute(TITLES)
            assert len(cursor.fetchall()) == 3
            Publication.objects.create(title="d")
            cursor.execute(TITLES)
            assert len(cursor.fetchall()) == 4
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.WROTE)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the replica refuses to write", raises=InternalError)
def test_write_through_the_alias_of_a_replica(routed: Routed) -> None:
    """It is run where writes are."""
    with routed.unit():
        with connections["replica1"].cursor() as cursor:
            cursor.execute("INSERT INTO corners_publication (title, summary) VALUES ('d', '')")
        assert Publication.objects.count() == 4
        routed.assert_reads("default", Reason.WROTE)


@pytest.mark.usefixtures("three")
def test_raw_queryset_on_a_replica(routed: Routed) -> None:
    """Manager.raw() asks the router like any other query."""
    with routed.unit():
        assert [publication.title for publication in Publication.objects.raw(TITLES)] == ["a", "b", "c"]
        routed.assert_reads(REPLICAS, Reason.REPLICA)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the new row is missing", raises=AssertionError)
def test_raw_queryset_after_a_write(routed: Routed) -> None:
    """In the unit of work that wrote, and in the next one of whoever wrote."""
    with routed.unit("ann"):
        Publication.objects.create(title="d")
        assert len(list(Publication.objects.raw(TITLES))) == 4
        routed.assert_reads("default", Reason.WROTE)
    with routed.unit("ann"):
        assert len(list(Publication.objects.raw(TITLES))) == 4
        routed.assert_reads("default", Reason.BEHIND)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the replica refuses to write", raises=InternalError)
def test_raw_queryset_that_writes(routed: Routed) -> None:
    """Its statement is run on the primary, and counts as a write."""
    with routed.unit():
        (changed,) = Publication.objects.raw("UPDATE corners_publication SET summary = 'x' WHERE title = 'a' RETURNING id, summary")
        assert changed.summary == "x"
        assert Publication.objects.get(title="a").summary == "x"
        routed.assert_reads("default", Reason.WROTE)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("options", [{}, {"analyze": True, "format": "json"}], ids=["plain", "analyze"])
def test_explain(routed: Routed, options: dict[str, Any]) -> None:
    """A query is explained by the server that would answer it, also where it is run for that, and binds nobody."""
    with routed.unit("ann"):
        assert "corners_publication" in Publication.objects.all().explain(**options)
        routed.assert_reads(REPLICAS, Reason.REPLICA)
    with routed.unit("ann"):
        Publication.objects.create(title="d")
        assert "corners_publication" in Publication.objects.all().explain(**options)
        routed.assert_reads({"default", *REPLICAS}, Reason.WROTE)


@pytest.mark.usefixtures("three")
@pytest.mark.naive_is_wrong("the plan is made for the rows of before", raises=AssertionError)
def test_explain_analyze_counts_what_was_just_written(routed: Routed) -> None:
    """The rows that it has met are those that the query would return."""
    with routed.unit("ann"):
        Publication.objects.create(title="d")
    with routed.unit("ann"):
        assert "rows=4" in Publication.objects.all().explain(analyze=True).splitlines()[0].split("actual")[1].replace("rows=4.00", "rows=4")
        routed.assert_reads("default", Reason.BEHIND)


@pytest.fixture
def temporary_table(routed: Routed) -> Iterator[None]:
    """A temporary table on this thread's connection to the primary."""
    routed.lag()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE corners_scratch (id bigserial PRIMARY KEY)")
    yield
    connection.close()


@pytest.mark.usefixtures("temporary_table")
@pytest.mark.naive_is_wrong("a replica has no such table", raises=ProgrammingError)
def test_temporary_table(routed: Routed) -> None:
    """A unit of work that fills one reads it, on the connection that has it."""
    with routed.unit():
        Scratch.objects.create()
        assert Scratch.objects.count() == 1
        routed.assert_reads("default", Reason.SESSION_STATE)


@pytest.mark.usefixtures("temporary_table")
@pytest.mark.naive_is_wrong("a replica has no such table", raises=ProgrammingError)
def test_temporary_table_from_before(routed: Routed) -> None:
    """One from before this unit of work is on no replica either: the primary is asked at once, as with use_primary()."""
    with routed.unit():
        assert Scratch.objects.count() == 0
        routed.assert_reads("default", Reason.SESSION_STATE)
    with routed.unit(), use_primary():
        assert Scratch.objects.count() == 0
        routed.assert_reads("default", Reason.FORCED_PRIMARY)


@pytest.mark.naive_is_wrong("each replica has locks of its own, so everybody gets it", raises=AssertionError)
@pytest.mark.parametrize("way", ["raw", "annotate", "cursor"])
def test_advisory_lock(routed: Routed, way: str) -> None:
    """A query that takes one takes it on the primary, however it is sent: what somebody holds there nobody else gets."""
    Publication.objects.create(title="News")
    routed.lag()
    taking = f"pg_try_advisory_lock({LOCK})"
    with routed.site.cluster.primary.connect(dbname="site") as other, routed.unit():
        other.execute(f"SELECT pg_advisory_lock({LOCK})")
        if way == "raw":
            got = Publication.objects.raw(f"SELECT id, {taking} AS got FROM corners_publication")[0].got
        elif way == "annotate":
            got = (
                Publication.objects.annotate(got=Func(Value(LOCK), function="pg_try_advisory_lock", output_field=BooleanField())).get().got
            )
        else:
            with connections[router.db_for_read(Publication)].cursor() as cursor:
                cursor.execute(f"SELECT {taking}")
                (got,) = cursor.fetchone()
        assert got is False
        routed.assert_reads("default")


def test_advisory_lock_of_a_transaction(routed: Routed) -> None:
    """By connection.cursor(), as most people do: held until the transaction ends."""
    routed.lag()
    taking = f"SELECT pg_try_advisory_xact_lock({LOCK})"
    with routed.site.cluster.primary.connect(dbname="site") as other, routed.unit():
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(taking)
                assert cursor.fetchone() == (True,)
            assert other.execute(taking).fetchone() == (False,)
        assert other.execute(taking).fetchone() == (True,)


@pytest.mark.naive_is_wrong("what is read under the lock is what a replica has", raises=AssertionError)
def test_read_under_an_advisory_lock(routed: Routed) -> None:
    """Once a unit of work has taken one it reads from the primary: what others did before they let go of it is seen."""
    routed.lag()
    Reader.objects.create(name="ann")
    with routed.unit():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_advisory_lock({LOCK})")
        try:
            assert Reader.objects.count() == 1
            routed.assert_reads("default", Reason.SESSION_STATE)
        finally:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT pg_advisory_unlock({LOCK})")


def test_listen_and_notify(routed: Routed) -> None:
    """What is sent in a transaction arrives with its commit, at whoever listens by connection.cursor()."""
    routed.lag()
    try:
        with routed.unit():
            with connection.cursor() as cursor:
                cursor.execute("LISTEN corners")
            with routed.site.cluster.primary.connect(dbname="site") as other:
                other.execute("NOTIFY corners, 'other'")
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("NOTIFY corners, 'own'")
            raw: psycopg.Connection[Any] = connection.connection
            assert [notify.payload for notify in raw.notifies(timeout=60, stop_after=2)] == ["other", "own"]
    finally:
        connection.close()


@pytest.mark.naive_is_wrong("no replica can notify anybody", raises=InternalError)
def test_notify_in_a_query(routed: Routed) -> None:
    """pg_notify() in a query of the ORM is run on the primary, where the listeners are."""
    Publication.objects.create(title="News")
    routed.lag()
    with routed.site.cluster.primary.connect(dbname="site") as listener, routed.unit():
        listener.execute("LISTEN corners")
        Publication.objects.annotate(sent=Func(Value("corners"), F("title"), function="pg_notify")).get()
        assert [notify.payload for notify in listener.notifies(timeout=60, stop_after=1)] == ["News"]
        routed.assert_reads("default")


@pytest.mark.naive_is_wrong("no replica can listen", raises=InternalError)
def test_listen_by_the_alias_of_a_replica(routed: Routed) -> None:
    """The cursor is on the primary then, and so is the connection that hears."""
    routed.lag()
    try:
        with routed.unit(), connections["replica1"].cursor() as cursor:
            cursor.execute("LISTEN corners")
            with routed.site.cluster.primary.connect(dbname="site") as other:
                other.execute("NOTIFY corners, 'heard'")
            assert [notify.payload for notify in cursor.connection.notifies(timeout=60, stop_after=1)] == ["heard"]
    finally:
        connection.close()


def test_built_in_functions_read_from_a_replica(routed: Routed) -> None:
    """So do the ORM's own, which call no lock and write nothing."""
    Publication.objects.create(title="News")
    routed.settle()
    with routed.unit():
        assert Publication.objects.annotate(long=Length("title", output_field=IntegerField())).get().long == 4
        routed.assert_reads(REPLICAS, Reason.REPLICA)


USES: dict[str, Callable[[Any], object]] = {
    "ensure_connection": lambda connection: connection.ensure_connection(),
    "get_autocommit": lambda connection: connection.get_autocommit(),
    "cursor": lambda connection: connection.cursor().execute("SELECT 1"),
}


@pytest.mark.parametrize("alias", ["default", "replica1"])
@pytest.mark.parametrize("use", USES)
def test_open_connection_is_refused_in_an_event_loop(routed: Routed, alias: str, use: str) -> None:
    """As one that is yet to be opened is."""
    connections[alias].ensure_connection()

    async def ask(connection: Any) -> None:
        USES[use](connection)

    with routed.unit(), pytest.raises(SynchronousOnlyOperation):
        asyncio.run(ask(connections[alias]))


@pytest.mark.parametrize("alias", ["default", "replica1"])
def test_connection_of_another_thread_is_refused(routed: Routed, alias: str) -> None:
    """Also in the same unit of work, which may have been answered there."""
    refused: list[str] = []

    def ask(connection: Any) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except DatabaseError as error:
            refused.append(str(error))
        finally:
            connections.close_all()

    with routed.unit():
        for _ in range(2):
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT 1")
        thread = threading.Thread(target=copy_context().run, args=[ask, connections[alias]])
        thread.start()
        thread.join(60)
    assert [text for text in refused if "can only be used in that same thread" in text] == refused != []
