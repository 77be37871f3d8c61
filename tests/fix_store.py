"""Redis as the store under faults, and stores on it that stand for processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound, Identity
from django_pglb.stores import CacheStore, Store, StoreError
from django_pglb.stores.base import merge_all
from django_pglb.stores.recovery import Condition, Recovery
from django_pglb.stores.redis import RedisPointers
from django_pglb.testing import Cluster, RedisServer, wait_until

ANN, BOB = ("user", "1"), ("user", "2")
# What a busy machine needs for a healthy server to answer. Frozen ones cost as much, once.
PATIENT = {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1}


def loaded(store: Store, identities: Sequence[Identity]) -> Bound:
    """Return what binds a reader who is all of `identities`."""
    return merge_all(store.load("default", identities))


def at(lsn: int) -> Bound:
    return Bound(Pointer(1, lsn, 1.0))


def entry(url: str, **options: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "OPTIONS": options}}


@pytest.fixture
def redis_server(site_cluster: Cluster) -> Iterator[RedisServer]:
    """Redis, empty, and back to normal after the test."""
    server = site_cluster.redis
    _heal(server)
    yield server
    _heal(server)


def _heal(server: RedisServer) -> None:
    server.thaw()
    server.start()
    with admin(server) as client:
        client.flushall()


@contextlib.contextmanager
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, socket_timeout=20) as client:
        yield client


MakeStore = Callable[..., CacheStore]
Deaf = tuple[str, list[socket.socket]]


@pytest.fixture
def make_store(redis_server: RedisServer) -> Iterator[MakeStore]:
    """Makes stores on Redis, each with the connections, the thread and the debts of a process of its own."""
    made: list[CacheStore] = []

    def make(**options: Any) -> CacheStore:
        with override_settings(CACHES=entry(redis_server.url, **{**PATIENT, **options})):
            made.append(CacheStore(pointer_seconds=3600))
        return made[-1]

    yield make
    redis_server.thaw()
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> CacheStore:
    """A store that has lost nothing."""
    store = make_store()
    store.vouch("default")
    return store


def recovery_of(store: CacheStore) -> Recovery:
    assert isinstance(store._pointers, RedisPointers)
    return store._pointers.recovery


def is_up(store: CacheStore) -> bool:
    return recovery_of(store).condition is Condition.UP


def wait_until_up(*stores: CacheStore) -> None:
    wait_until(lambda: all(is_up(store) for store in stores), timeout=60, what="the stores to be well again")


def take_down(store: CacheStore) -> None:
    """Have a store that does not answer notice it."""
    with pytest.raises(StoreError, match="does not answer"):
        loaded(store, [ANN])


@pytest.fixture
def deaf_redis() -> Iterator[Deaf]:
    """The address of a server that accepts connections and never answers, and the connections that it has got."""
    got: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    got.append(listener.accept()[0])

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0", got
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    for connection in got:
        connection.close()


def pool_of(store: CacheStore) -> Any:
    assert isinstance(store._pointers, RedisPointers)
    return store._pointers._client().connection_pool


def kill_and_restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def flush(server: RedisServer) -> None:
    with admin(server) as client:
        client.flushall()


@contextlib.contextmanager
def interrupted_when(condition: Callable[[], bool], *, by: type[BaseException] = SystemExit) -> Iterator[None]:
    """Have the main thread, which this is, interrupted when `condition` holds: as a worker is ended, or by the time limit of a task."""

    def end(*_: Any) -> None:
        raise by

    def interrupt() -> None:
        wait_until(condition, timeout=60, what="the moment to interrupt")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, end)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
