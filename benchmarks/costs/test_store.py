"""Loading and saving pointers, and taking the position that is saved, beside what client libraries and the wire cost without us."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.db import connections

from django_pglb import runtime
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound
from django_pglb.stores import open_store
from django_pglb.stores.base import Store
from django_pglb.stores.carried import sign, unsign

from .conftest import Case
from .environment import contender, servers
from .tables import STORE, TIME

ONE, TWO = (("session", "k" * 32),), (("session", "k" * 32), ("user", "1"))
IDENTITIES = {"1 identity": ONE, "2 identities": TWO}
BOUND = Bound(Pointer(1, 1024, time.time()))
GET = b"*2\r\n$3\r\nGET\r\n$5\r\nprobe\r\n"
NIL = b"$-1\r\n"

needs_redis = pytest.mark.skipif(contender().settings["PGLB"]["default"]["STORE"]["BACKEND"].endswith("CookieStore"), reason="no Redis")


@pytest.fixture
def store() -> Iterator[Store]:
    """The contender's store, made anew."""
    store = open_store(runtime.get_runtime().config.clusters["default"])
    yield store
    store.close()


@pytest.mark.parametrize("number", IDENTITIES)
def test_load(number: str, store: Store, fill: Case) -> None:
    store.save("default", IDENTITIES[number], BOUND)
    fill(STORE, f"{type(store).__name__}: load, {number}", TIME, lambda: store.load("default", IDENTITIES[number]))


@pytest.mark.parametrize("number", IDENTITIES)
def test_save(number: str, store: Store, fill: Case) -> None:
    fill(STORE, f"{type(store).__name__}: save, {number}", TIME, lambda: store.save("default", IDENTITIES[number], BOUND))


def test_sign(fill: Case) -> None:
    fill(STORE, "the signed cookie: write", TIME, lambda: sign({"default": BOUND}))


def test_unsign(fill: Case) -> None:
    text = sign({"default": BOUND})
    fill(STORE, "the signed cookie: read", TIME, lambda: unsign(text, max_age=3600))


@needs_redis
def test_bare_get(fill: Case) -> None:
    with redis.Redis.from_url(servers().redis) as client:
        fill(STORE, "redis-py alone: `GET`", TIME, lambda: client.get("probe"))


@needs_redis
def test_bare_pipeline(fill: Case) -> None:
    def load() -> object:
        pipeline = client.pipeline(transaction=False)
        for _ in range(3):
            pipeline.get("probe")
        return pipeline.execute()

    with redis.Redis.from_url(servers().redis) as client:
        fill(STORE, "redis-py alone: three `GET` in one message", TIME, load)


@needs_redis
@pytest.mark.parametrize(("name", "number"), [("`GET`", 1), ("three `GET` in one message", 3)])
def test_bare_socket(name: str, number: int, fill: Case) -> None:
    with _connected() as connection:
        fill(STORE, f"a socket alone: {name}", TIME, _asking(connection, GET * number, len(NIL) * number))


def test_position(fill: Case) -> None:
    connection: Any = connections["default"]
    connection.ensure_connection()
    fill(STORE, "the primary's position", TIME, lambda: connection.pglb_capture_pointer(1))


def test_bare_select(fill: Case) -> None:
    connection = connections["plain_default"]
    connection.ensure_connection()
    fill(STORE, "psycopg alone: `SELECT 1`", TIME, lambda: connection.connection.execute("SELECT 1").fetchone())


def _connected() -> socket.socket:
    address = urlsplit(servers().redis)
    connection = socket.create_connection((address.hostname, address.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _asking(connection: socket.socket, question: bytes, length: int) -> Callable[[], object]:
    def ask() -> None:
        connection.sendall(question)
        answered = 0
        while answered < length:
            answered += len(connection.recv(4096))

    return ask
