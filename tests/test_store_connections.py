"""Connections to Redis that are held between two messages: nobody gets another's answer, and nobody notices one that was closed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings
from redis.sentinel import SentinelConnectionPool

from django_pglb.stores import CacheStore, StoreError
from django_pglb.stores.connections import HeldConnections, hold
from django_pglb.testing import RedisServer, wait_until

from .fix_store import ANN, PATIENT, MakeStore, admin, at, entry, interrupted_when, is_up, loaded, pool_of

ROOT = Path(__file__).parents[1]
WHO = [("CLIENT", "ID")]


class Sentinel:
    """Names the master."""

    def __init__(self, port: int) -> None:
        self.port = port

    def discover_master(self, _service: str) -> tuple[str, int]:
        return ("127.0.0.1", self.port)


def plain_pool(server: RedisServer, **options: Any) -> redis.ConnectionPool:
    return redis.ConnectionPool.from_url(server.url, **options)


def sentinel_pool(server: RedisServer, **options: Any) -> redis.ConnectionPool:
    return SentinelConnectionPool("main", Sentinel(server.port), password=server.password, **options)


@contextlib.contextmanager
def held_of(pool: redis.ConnectionPool) -> Iterator[HeldConnections]:
    yield HeldConnections(pool)
    pool.disconnect()


@pytest.mark.parametrize("make_pool", [plain_pool, sentinel_pool])
@pytest.mark.parametrize("how", [redis.TimeoutError, SystemExit])
def test_answer_that_nobody_waited_for_is_given_to_nobody(redis_server: RedisServer, make_pool: Any, how: type[BaseException]) -> None:
    """A message that ended early ends its connection: the late answer to it is not taken for the answer to the next one."""
    pool = make_pool(redis_server, socket_timeout=2 if how is redis.TimeoutError else 60)
    done = threading.Event()
    with admin(redis_server) as client, held_of(pool) as held:
        client.set("bob", "bob's")
        (mine,) = held.ask(WHO)

        def is_asked() -> bool:
            """Say whether there is another message on the connection whose answer is overdue."""
            return any(int(other["qbuf"]) for other in client.client_list() if int(other["id"]) == mine)

        def answer_late() -> None:
            wait_until(lambda: done.is_set() or is_asked(), timeout=60, what="somebody to ask")
            client.rpush("late", "ann's")

        def is_blocked() -> bool:
            return bool(client.info("clients")["blocked_clients"])

        ending = interrupted_when(is_blocked) if how is SystemExit else contextlib.nullcontext()
        with pytest.raises(how), ending:
            held.ask([("BLPOP", "late", 0)])
        thread = threading.Thread(target=answer_late)
        thread.start()
        try:
            assert held.ask([("GET", "bob")]) == [b"bob's"]
        finally:
            done.set()
            thread.join()


def test_closed_connection_is_replaced_unnoticed(redis_server: RedisServer) -> None:
    """A server that closes what is idle costs nobody an error."""
    with admin(redis_server) as client, held_of(plain_pool(redis_server, socket_timeout=20)) as held:
        (first,) = held.ask(WHO)
        assert held.ask(WHO) == [first]
        assert client.client_kill_filter(_id=str(first)) == 1
        wait_until(lambda: all(int(other["id"]) != first for other in client.client_list()), timeout=20, what="the connection to be closed")
        (second,) = held.ask(WHO)
        assert second != first
        assert held.ask(WHO) == [second]


def test_error_of_the_server_is_an_answer(redis_server: RedisServer) -> None:
    """One command that fails leaves the answers to the others, and the connection, as they are."""
    with admin(redis_server) as client, held_of(plain_pool(redis_server, socket_timeout=20)) as held:
        client.rpush("list", "value")
        first, error, second = held.ask([*WHO, ("GET", "list"), *WHO])
        assert isinstance(error, redis.ResponseError)
        assert [first] == [second] == held.ask(WHO)


def test_threads_get_their_own_answers(redis_server: RedisServer) -> None:
    """Threads that ask at once get what they asked for, over no more connections than there are threads."""
    barrier = threading.Barrier(8)

    def ask(number: int) -> list[Any]:
        barrier.wait()
        return [held.ask([("ECHO", f"{number} {turn}")]) == [f"{number} {turn}".encode()] for turn in range(200)]

    with held_of(plain_pool(redis_server, socket_timeout=20)) as held, ThreadPoolExecutor(8) as executor:
        assert all(all(answers) for answers in executor.map(ask, range(8)))
        assert len(held._idle) <= 8


def test_connections_to_a_former_master_are_not_used(redis_server: RedisServer) -> None:
    """As soon as one connection has found the new master, all that were held to the old one are given up."""
    # To the pool another address is another server.
    sentinel = Sentinel(redis_server.port)
    pool = SentinelConnectionPool("main", sentinel, password=redis_server.password, socket_timeout=20)
    with held_of(pool) as held:
        (old,) = held.ask(WHO)
        assert held.ask(WHO) == [old]
        sentinel.discover_master = lambda _service: ("localhost", redis_server.port)  # type: ignore[method-assign]
        pool.get_master_address()
        (new,) = held.ask(WHO)
        assert new != old


FORKED = """
import os, django
django.setup()
from django_pglb.stores.client import open_client

client = open_client("default")
def ask():
    return client.ask([("CLIENT", "ID")])[0]

mine = ask()
assert client._held is not None and ask() == mine
child = os.fork()
if not child:
    print("child", ask() != mine, ask() != mine, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", ask() == mine, flush=True)
"""


def test_forked_child_leaves_its_parents_connection_alone(redis_server: RedisServer, tmp_path: Path) -> None:
    """The child asks over one of its own, and the parent's is as it was."""
    (tmp_path / "forked_settings.py").write_text(f"SECRET_KEY = 'x'\nCACHES = {entry(redis_server.url, **PATIENT)!r}\n")
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "forked_settings", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", FORKED], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "child True True\nparent True\n"


def test_one_connection_is_enough(make_store: MakeStore) -> None:
    """A pool that may have one gives it to loads, saves and reports alike."""
    store = make_store(CONNECTION_POOL_KWARGS={"max_connections": 1})
    store.vouch("default")
    for lsn in (8, 16):
        store.save("default", [ANN], at(lsn))
        assert loaded(store, [ANN]) == at(lsn)
        assert (report := store.look("default")) is not None
        assert report.state == "online"


@pytest.mark.parametrize("in_address", [True, False])
def test_limit_of_the_sites_cache_does_not_starve_pointers(redis_server: RedisServer, make_store: MakeStore, in_address: bool) -> None:
    """More threads ask at once than the cache may have connections."""
    limit: dict[str, Any] = {} if in_address else {"CONNECTION_POOL_KWARGS": {"max_connections": 1}}
    with override_settings(CACHES=entry(redis_server.url + ("?max_connections=1" if in_address else ""), **PATIENT, **limit)):
        store = CacheStore(pointer_seconds=60)
    with contextlib.closing(store):
        store.vouch("default")
        store.save("default", [ANN], at(8))
        barrier = threading.Barrier(8)

        def ask(_: int) -> list[Any]:
            barrier.wait()
            return [loaded(store, [ANN]) for _ in range(50)]

        with ThreadPoolExecutor(8) as executor:
            assert all(found == [at(8)] * 50 for found in executor.map(ask, range(8)))
        assert is_up(store)


def test_pool_of_the_sites_own_that_has_no_connection_left_is_no_outage(make_store: MakeStore) -> None:
    """Who cannot ask now is not answered, and the next one is."""
    store = make_store(CONNECTION_POOL_CLASS="redis.BlockingConnectionPool", CONNECTION_POOL_KWARGS={"max_connections": 1, "timeout": 0.01})
    store.vouch("default")
    store.save("default", [ANN], at(8))
    taken = pool_of(store).get_connection()
    with pytest.raises(StoreError, match="does not answer"):
        loaded(store, [ANN])
    pool_of(store).release(taken)
    assert is_up(store)
    assert loaded(store, [ANN]) == at(8)


def test_pool_that_waits_keeps_its_connections(make_store: MakeStore) -> None:
    """Threads that wait for the one connection of a blocking pool all get it: nobody holds it in the meantime."""
    store = make_store(
        CONNECTION_POOL_CLASS="redis.BlockingConnectionPool",
        CONNECTION_POOL_KWARGS={"max_connections": 1, "timeout": 20},
    )
    store.vouch("default")
    store.save("default", [ANN], at(7))
    assert isinstance(pool_of(store), redis.BlockingConnectionPool)
    with ThreadPoolExecutor(4) as executor:
        assert set(executor.map(lambda _: loaded(store, [ANN]), range(200))) == {at(7)}


class Traced(redis.Redis):
    """A client with a habit of its own."""


def test_clients_of_the_sites_own_are_used_as_they_are(redis_server: RedisServer) -> None:
    """Whoever has set a class of client wants every command to go through it."""
    pool = plain_pool(redis_server)
    assert hold(Traced(connection_pool=pool)) is None
    assert hold(redis.Redis(connection_pool=pool)) is not None
