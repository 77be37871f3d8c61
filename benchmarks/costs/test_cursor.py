"""What the cursor adds to a statement, beside Django's own engine on the same server.

A round trip is seventy times what is looked for. So the servers' part is taken out: a cursor of psycopg whose `execute` returns at once
stands in below everything that Django and this package do. On real servers both engines run in turn, and the CPU time is compared as well;
they share one connection, for what a round trip takes depends on the core that the server's process is on, and by more than a half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.db import connections

from django_pglb.context import open_routing
from django_pglb.core.routing_session import RoutingSession
from django_pglb.placement import route_read
from django_pglb.pointers import note_write

from .conftest import Case
from .contenders import REPLICAS
from .environment import is_short
from .paired import count_calls, difference
from .tables import CREATION, DJANGO, IDLE_CURSOR, MORE, MORE_CALLS, MORE_CPU, ON_PRIMARY, ON_REPLICA, OURS, REAL_CURSOR

READ = "SELECT 1"
WRITE = "UPDATE auth_group SET name = 'x' WHERE false"

# Our alias, the plain one on the same server, the statement.
STATEMENTS = {
    ON_REPLICA: ("replica1", "plain_replica1", READ),
    ON_PRIMARY: ("default", "plain_default", READ),
    "write on the primary": ("default", "plain_default", WRITE),
}


class IdleCursor(psycopg.ClientCursor[Any]):
    """Answers at once, and asks no server."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def fetchone(self) -> Any:
        return (1,)

    def fetchmany(self, size: int = 0) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def unit() -> Iterator[None]:
    """A unit of work as that of a request."""
    with open_routing(RoutingSession(is_request=True)):
        yield
        connections.close_all()


@pytest.mark.parametrize("creation", CREATION)
@pytest.mark.parametrize("engine", [DJANGO, OURS])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_on_a_stand_in(statement: str, engine: str, creation: str, fill: Case, also: Any) -> None:
    ours, plain, sql = STATEMENTS[statement]
    _decide(ours, sql)
    _stand_in(ours, plain)
    calls = {OURS: _call(ours, sql, creation), DJANGO: _call(plain, sql, creation)}
    _compare(f"{statement}, {creation}", engine, calls, fill, also)


@pytest.mark.parametrize("engine", [DJANGO, OURS])
def test_orm(engine: str, fill: Case, also: Any) -> None:
    _stand_in("plain_replica1", *REPLICAS)
    query = Group.objects.values_list("name")
    _compare(
        "query of the ORM, routed",
        engine,
        {OURS: lambda: list(query.all()), DJANGO: lambda: list(query.using("plain_replica1"))},
        fill,
        also,
    )


@pytest.mark.parametrize("creation", CREATION)
@pytest.mark.parametrize("engine", [DJANGO, OURS])
@pytest.mark.parametrize("statement", [ON_REPLICA, ON_PRIMARY])
def test_on_a_server(statement: str, engine: str, creation: str, fill: Case, also: Any) -> None:
    ours, plain, sql = STATEMENTS[statement]
    _decide(ours, sql)
    _share_connection(ours, plain)
    calls = {OURS: _call(ours, sql, creation), DJANGO: _call(plain, sql, creation)}
    fill(REAL_CURSOR, f"{statement}, {creation}", engine, calls[engine])
    if engine == OURS:
        more = difference(calls[OURS], calls[DJANGO], pairs=5 if is_short() else 400, calls=20)
        also(MORE, more.elapsed)
        also(MORE_CPU, more.cpu)


def _compare(row: str, engine: str, calls: dict[str, Callable[[], object]], fill: Case, also: Any) -> None:
    fill(IDLE_CURSOR, row, engine, calls[engine])
    if engine == OURS:
        also(MORE, difference(calls[OURS], calls[DJANGO], pairs=10 if is_short() else 400, calls=100).cpu)
        also(MORE_CALLS, count_calls(calls[OURS]) - count_calls(calls[DJANGO]))


def _stand_in(*aliases: str) -> None:
    for alias in aliases:
        connection: Any = connections[alias]
        connection.ensure_connection()
        connection.connection.cursor_factory = IdleCursor


def _share_connection(ours: str, plain: str) -> None:
    """Let Django's engine talk to the very server process that ours talks to."""
    theirs: Any = connections[plain]
    connections[ours].ensure_connection()
    theirs.ensure_connection()
    theirs.connection.close()
    theirs.connection = connections[ours].connection


def _decide(alias: str, sql: str) -> None:
    """Route a read as the ORM does before it asks for a cursor."""
    if alias == "default":
        note_write("default")
        route_read("default")
    else:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)


def _call(alias: str, sql: str, creation: str) -> Callable[[], object]:
    connection = connections[alias]
    fetches = sql is READ

    def run(cursor: Any) -> None:
        cursor.execute(sql)
        if fetches:
            cursor.fetchone()

    def run_on_new() -> None:
        with connection.cursor() as cursor:
            run(cursor)

    if creation == CREATION[0]:
        return run_on_new
    cursor = connection.cursor()
    return lambda: run(cursor)
