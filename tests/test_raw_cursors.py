"""`cursor.cursor`, psycopg's own below Django's: what it offers works whatever has been decided yet, and whoever stands in for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import InterfaceError, connection, connections, transaction
from psycopg.rows import dict_row

from django_pglb import current_decisions, routing_session, use_replicas
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState

from .fix_site import Site
from .guestbook.models import Author, Entry

TEXTS = "SELECT text FROM guestbook_entry ORDER BY text"


def copied_out(raw: Any) -> list[str]:
    with raw.copy(f"COPY ({TEXTS}) TO STDOUT") as rows:
        return [text for (text,) in rows.rows()]


def streamed(raw: Any) -> list[str]:
    return [text for (text,) in raw.stream(TEXTS)]


def fetched(raw: Any) -> list[str]:
    raw.execute(TEXTS)
    return [text for (text,) in raw.fetchall()]


def iterated(raw: Any) -> list[str]:
    return [text for (text,) in raw.execute(TEXTS)]


def described(raw: Any) -> list[str]:
    raw.execute(TEXTS)
    assert [column.name for column in raw.description] == ["text"]
    assert raw.statusmessage == f"SELECT {raw.rowcount}"
    return [text for (text,) in raw]


def composed(raw: Any) -> list[str]:
    assert raw.mogrify("SELECT %s", [1]) == "SELECT 1"
    assert raw.connection.info.dbname == "site"
    return fetched(raw)


READS = (copied_out, streamed, fetched, iterated, described, composed)


@pytest.fixture(params=["replicas online", "no replica", "no replica any more"])
def state(request: pytest.FixtureRequest, site: Site) -> Iterator[str]:
    """Who answers reads in the unit of work that is open."""
    Entry.objects.bulk_create([Entry(text=text) for text in "ab"])
    site.wait_until_seen()
    if request.param != "replicas online":
        for replica in site.cluster.replicas:
            replica.kill()
    if request.param == "no replica":
        site.wait_for_states(replica1=HostState.OFFLINE, replica2=HostState.OFFLINE)
    with routing_session():
        assert Entry.objects.count() == 2
        yield str(request.param)


@pytest.mark.parametrize("alias", ["default", "replica1"])
@pytest.mark.parametrize("read", READS)
def test_raw_cursor_reads(state: str, alias: str, read: Callable[[Any], list[str]]) -> None:
    """In each state, by each alias."""
    with connections[alias].cursor() as cursor:
        assert read(cursor.cursor) == ["a", "b"]


# --- What psycopg's own says and takes ---

NUMBERS = "SELECT g FROM generate_series(1, 5) g"
INSERT = "INSERT INTO guestbook_author (name) VALUES (%s) RETURNING name"


def with_rows_as_dictionaries(raw: Any) -> Any:
    raw.row_factory = dict_row
    return raw.execute("SELECT 1 AS one").fetchone()


def with_size_of_its_own(raw: Any) -> Any:
    raw.arraysize = 3
    return raw.execute(NUMBERS).fetchmany()


def with_returning(raw: Any) -> Any:
    raw.executemany(INSERT, iter([("a",), ("b",)]), returning=True)
    return raw.fetchone(), raw.nextset(), raw.fetchone()


def with_its_end(raw: Any) -> Any:
    with raw as entered:
        was_closed, rows = entered.closed, entered.execute(NUMBERS).fetchmany(size=2)
    return was_closed, rows, raw.closed


def with_wrong_statement(raw: Any) -> Any:
    with pytest.raises(psycopg.errors.UndefinedTable):
        raw.execute("SELECT * FROM nowhere_at_all")


OFFERS = {
    "dictionaries": with_rows_as_dictionaries,
    "size": with_size_of_its_own,
    "returning": with_returning,
    "end": with_its_end,
    "wrong": with_wrong_statement,
    "prepare": lambda raw: raw.execute("SELECT 1", prepare=False).fetchone(),
    "names": lambda raw: raw.execute(query="SELECT %s", params=[1]).fetchone(),
    "scroll": lambda raw: (raw.execute(NUMBERS), raw.scroll(2), raw.fetchone())[2:],
    "sets": lambda raw: (raw.execute("SELECT 1; SELECT 2"), raw.fetchall(), raw.nextset(), raw.fetchall())[1:],
    "write": lambda raw: raw.execute(INSERT, ["a"]).fetchall(),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
def test_raw_cursor_of_a_replica_takes_what_psycopgs_takes(site: Site, offer: Callable[[Any], Any]) -> None:
    """And gives what that gives, without a unit of work, in one, and in one that has written."""
    with connection.cursor() as cursor:
        expected = offer(cursor.cursor)
    with connections["replica1"].cursor() as cursor:
        assert offer(cursor.cursor) == expected
    for writes in (False, True):
        with routing_session():
            if writes:
                Author.objects.create(name="c")
            with connections["replica1"].cursor() as cursor:
                assert offer(cursor.cursor) == expected


@pytest.mark.parametrize("alias", ["default", "replica1"])
def test_raw_cursor_copies_in(state: str, alias: str) -> None:
    """Rows reach the primary, whichever alias was asked."""
    with connections[alias].cursor() as cursor, cursor.cursor.copy("COPY guestbook_author (name) FROM STDIN") as rows:
        rows.write_row(["c"])
    assert Author.objects.using("default").get().name == "c"


def test_raw_cursor_of_the_primary_is_psycopgs(state: str) -> None:
    """Also a named one, which Django has for `iterator()`, and while another alias could answer instead."""
    with connection.cursor() as cursor:
        assert isinstance(cursor.cursor, psycopg.Cursor)
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        assert isinstance(cursor.cursor, psycopg.ServerCursor)


def test_raw_cursor_of_a_replica_obeys_the_rules(site: Site) -> None:
    """What is asked of it goes where it belongs, and counts."""
    site.pause_replay()
    with routing_session():
        with connections["replica1"].cursor() as cursor:
            cursor.cursor.execute("INSERT INTO guestbook_author (name) VALUES ('a')")
        with connections["replica1"].cursor() as cursor:
            assert cursor.cursor.execute("SELECT name FROM guestbook_author").fetchall() == [("a",)]
        assert {(decision.alias, decision.reason) for decision in current_decisions()} == {
            ("default", Reason.WRITE),
            ("default", Reason.WROTE),
        }
    with use_replicas(), connections["replica1"].cursor() as cursor:
        assert fetched(cursor.cursor) == []
        assert isinstance(cursor.cursor, psycopg.Cursor)
    site.resume_replay()


@pytest.mark.parametrize("alias", ["default", "replica1"])
def test_raw_cursor_of_one_that_is_closed(site: Site, alias: str) -> None:
    """Says so, as psycopg's does."""
    cursor = connections[alias].cursor()
    cursor.close()
    with pytest.raises((psycopg.InterfaceError, InterfaceError), match="closed"):
        cursor.cursor.execute("SELECT 1")
