"""Whatever writes at the primary's cursor is noticed, and what only reads is not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction

from django_pglb import current_decisions, routing_session
from django_pglb.context import current_scope
from django_pglb.core.decision import Reason

from .fix_site import Site
from .guestbook.models import Author, Entry

pytestmark = pytest.mark.usefixtures("site")


def run(sql: str, params: Any = None) -> Callable[[], None]:
    def statement() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)

    return statement


def copy_in() -> None:
    with connection.cursor() as cursor, cursor.copy("COPY guestbook_author (name) FROM STDIN") as copy:
        copy.write_row(["copied"])


def copy_out() -> None:
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT name FROM guestbook_author) TO STDOUT") as copy:
        assert list(copy.rows()) == []


def many() -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO guestbook_author (name) VALUES (%s)", [("a",), ("b",)])


def procedure() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION add_author(n text) RETURNS int LANGUAGE sql AS "
            "'INSERT INTO guestbook_author (name) VALUES (n) RETURNING 1'"
        )
    with routing_session(), connection.cursor() as cursor:
        cursor.callproc("add_author", ["x"])
        routing = current_scope().routing
        assert routing is not None
        assert routing.cluster("default").wrote
    with connection.cursor() as cursor:
        cursor.execute("SELECT add_author('y')")


def stream() -> None:
    with connection.cursor() as cursor:
        list(cursor.stream("INSERT INTO guestbook_author (name) VALUES ('s') RETURNING id"))


WRITES: dict[str, Callable[[], Any]] = {
    "orm": lambda: Entry.objects.create(text="x"),
    "bulk_create": lambda: Author.objects.bulk_create([Author(name="a"), Author(name="b")]),
    "update": lambda: Author.objects.update(name="z"),
    "raw insert": run("INSERT INTO guestbook_author (name) VALUES (%s)", ["x"]),
    "comment first": run("/* SELECT */ -- SELECT\n INSERT INTO guestbook_author (name) VALUES ('x')"),
    "cte": run("WITH new AS (INSERT INTO guestbook_author (name) VALUES ('x') RETURNING id) SELECT id FROM new"),
    "second statement": run("SELECT 1; INSERT INTO guestbook_author (name) VALUES ('x')"),
    "explain analyze": run("EXPLAIN (ANALYZE, COSTS OFF) INSERT INTO guestbook_author (name) VALUES ('x')"),
    "executemany": many,
    "copy in": copy_in,
    "callproc and function": procedure,
    "stream": stream,
    "in a transaction": lambda: transaction.atomic()(lambda: Entry.objects.create(text="x"))(),
    "sequence": run("SELECT nextval('guestbook_author_id_seq')"),
}
READS: dict[str, Callable[[], Any]] = {
    "select": run("SELECT count(*) FROM guestbook_author"),
    "copy out": copy_out,
    "locking read": lambda: transaction.atomic()(lambda: list(Author.objects.select_for_update(skip_locked=True, no_key=True)))(),
    "savepoints": lambda: transaction.atomic()(transaction.atomic()(lambda: Author.objects.count()))(),
    "explain": run("EXPLAIN SELECT 1"),
    "server-side cursor": lambda: list(Author.objects.using("default").iterator()),
}


def wrote() -> bool:
    routing = current_scope().routing
    assert routing is not None
    return routing.cluster("default").wrote


@pytest.mark.parametrize("name", WRITES)
def test_write_is_noticed(name: str) -> None:
    """Afterwards the unit of work reads from the primary."""
    with routing_session():
        WRITES[name]()
        assert wrote()
        Entry.objects.count()
        assert current_decisions()[-1].reason in {Reason.WROTE, Reason.WRITE}


@pytest.mark.parametrize("name", READS)
def test_read_on_the_primary_is_not_a_write(name: str) -> None:
    """A transaction, a savepoint or a lock alone binds nobody."""
    with routing_session():
        READS[name]()
        assert not wrote()


def test_locking_read_runs_on_the_primary() -> None:
    """Also when it was addressed to a replica, where it would fail."""
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT * FROM guestbook_author FOR NO KEY UPDATE SKIP LOCKED")
        assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.WRITE)]
        assert not wrote()


def test_write_hidden_from_the_classifier_is_run_on_the_primary_and_counts(site: Site) -> None:
    """A harmless-looking view hides a function that writes: 25006 on the replica, then the primary, and the writer is bound."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION sneak() RETURNS bigint LANGUAGE sql AS "
            "'INSERT INTO guestbook_author (name) VALUES (''sneaked'') RETURNING id'"
        )
        cursor.execute("CREATE OR REPLACE VIEW sneaky AS SELECT sneak() AS id")
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=("test", "sneak")), connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT id FROM sneaky")
        assert cursor.fetchone()[0] > 0
        assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.WRITE)]
        assert wrote()
    assert Author.objects.filter(name="sneaked").count() == 1
    assert len(site.pointer_keys()) == 1


def test_statement_that_a_wrapper_puts_in_place_of_another_is_what_counts() -> None:
    """Django's `execute_wrapper`s run below the cursor, and may prefix or replace what it was given."""

    def prefix(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute(f"INSERT INTO guestbook_author (name) VALUES ('wrapped'); {sql}", params, many, context)

    for alias in ("default", "replica1"):
        with routing_session(), connections[alias].execute_wrapper(prefix), connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            assert wrote()
            assert current_decisions()[-1][:2] == ("default", Reason.WRITE)
    assert Author.objects.filter(name="wrapped").count() == 2


class Unknown:
    """What no adapter knows."""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'é'".encode(),
        psycopg.sql.SQL("SELECT {}").format(psycopg.sql.Literal(Unknown())),
        object(),
    ],
    ids=["bytes in some encoding", "literal that cannot be adapted", "no statement at all"],
)
def test_statement_whose_text_is_not_known_counts_as_a_write(statement: Any) -> None:
    """Whatever psycopg then says of it, in Django's exceptions."""
    with routing_session(), connections["replica1"].cursor() as cursor:
        with suppress(DatabaseError, TypeError):
            cursor.execute(statement)
        assert wrote()


def test_percent_sign_is_one_where_there_are_no_parameters() -> None:
    """psycopg replaces nothing then, so a pattern is no placeholder."""
    with routing_session(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 WHERE 'reason' LIKE '%son'")
        assert (cursor.fetchone(), wrote()) == ((1,), False)
        cursor.execute("SELECT 1 WHERE 'a' LIKE '%%' || %s", ["a"])
        assert not wrote()


DYING_INSERT = "INSERT INTO guestbook_author (name) SELECT 'x' FROM pg_terminate_backend(pg_backend_pid()) RETURNING id"


def die_in_callproc(site: Site) -> None:
    with connection.cursor() as cursor:
        cursor.callproc("die", [1])


def die_in_copy(site: Site) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY guestbook_author (name) FROM STDIN") as copy:
        site.cluster.primary.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'")
        copy.write_row(["x"])


def die_in_stream(site: Site) -> None:
    with connection.cursor() as cursor:
        list(cursor.stream(DYING_INSERT))


def die_behind_a_replica(site: Site) -> None:
    with connections["replica1"].cursor() as cursor:
        cursor.execute("SELECT * FROM dying")


DEATHS: dict[str, Callable[[Site], None]] = {
    "execute": lambda _: run(DYING_INSERT)(),
    "callproc": die_in_callproc,
    "copy": die_in_copy,
    "stream": die_in_stream,
    "write that a replica refused": die_behind_a_replica,
}


@pytest.fixture
def deadly_function(site: Site) -> None:
    """A function that writes and ends its own connection, and a view that hides it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION die(n int) RETURNS bigint LANGUAGE sql AS "
            "'INSERT INTO guestbook_author (name) VALUES (''dead''); SELECT 1::bigint FROM pg_terminate_backend(pg_backend_pid())'"
        )
        cursor.execute("CREATE OR REPLACE VIEW dying AS SELECT die(1)")
    site.cluster.wait_until_replicas_caught_up()


@pytest.mark.usefixtures("deadly_function")
@pytest.mark.parametrize("death", DEATHS)
def test_write_with_an_unknown_outcome_pins_the_writer(site: Site, death: str) -> None:
    """The connection breaks while an autocommit write runs: the error is raised, and the writer reads from the primary for a while."""
    identity = ("test", "unlucky")
    with routing_session(identity=identity):
        with pytest.raises((DatabaseError, psycopg.Error)):
            DEATHS[death](site)
        connection.close()
    site.cluster.wait_until_replicas_caught_up()
    with routing_session(identity=identity):
        Author.objects.count()
        assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.BEHIND)]
    with routing_session(identity=("test", "other")):
        Author.objects.count()
        assert {d.reason for d in current_decisions()} == {Reason.REPLICA}
