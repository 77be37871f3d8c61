"""How long a request may wait for the store: our own timeouts, no retries, and once."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import override_settings

from django_pglb.stores import CacheStore, StoreError
from django_pglb.stores.client import TIMEOUT_SECONDS
from django_pglb.testing import RedisServer, wait_until
from django_pglb.testing.ports import free_port

from .fix_store import (
    ANN,
    BOB,
    Deaf,
    at,
    entry,
    loaded,
    pool_of,
    recovery_of,
    take_down,
)


def test_silent_store_costs_a_process_one_short_attempt_a_second(deaf_redis: Deaf) -> None:
    """The first request waits once, the others not at all, and the thread tries about once a second: counted by the server."""
    url, got = deaf_redis
    with override_settings(CACHES=entry(url)), contextlib.closing(CacheStore(pointer_seconds=3600)) as store:
        started = time.monotonic()
        take_down(store)
        # redis-py's own timeout is 5 s, and with its retries it takes thrice that.
        assert time.monotonic() - started < 4
        assert len(got) == 1
        refused = 0
        while len(got) < 4:
            assert time.monotonic() - started < 60
            for identity in (ANN, BOB):
                with pytest.raises(StoreError, match="did not answer a moment ago"):
                    loaded(store, [identity])
                with pytest.raises(StoreError, match="did not answer a moment ago"):
                    store.save("default", [identity], at(1))
                refused += 2
            time.sleep(0.005)
        assert refused > 10 * len(got)
        # The first, and then one each 0.8 s at the most.
        assert len(got) <= 1 + (time.monotonic() - started) / 0.8
        assert recovery_of(store).owed == 2
        assert recovery_of(store).errors["TimeoutError"] >= 3


def attempts(connection: Any) -> int:
    """Return how often a connection would try what always times out."""
    tries: list[None] = []

    def fail() -> None:
        tries.append(None)
        raise redis.TimeoutError

    with pytest.raises(redis.TimeoutError):
        connection.retry.call_with_retry(fail, lambda _: None)
    return len(tries)


def test_our_timeouts_are_not_the_sites(redis_server: RedisServer) -> None:
    """The site's cache keeps its connections and its settings, and ours are short and try once."""
    # A database that nobody else uses: django-redis keeps one pool for each address.
    url = redis_server.url.removesuffix("/0") + "/7"
    with override_settings(CACHES=entry(url, CONNECTION_POOL_KWARGS={"retry_on_timeout": True, "max_connections": 7})):
        theirs = caches["default"].client.get_client().connection_pool  # type: ignore[attr-defined]
        with contextlib.closing(CacheStore(pointer_seconds=60)) as store:
            ours = pool_of(store)
            assert ours is not theirs
            assert ours is pool_of(store)
            assert "socket_timeout" not in theirs.connection_kwargs
            connection = ours.make_connection()
            assert (connection.socket_timeout, connection.socket_connect_timeout) == (TIMEOUT_SECONDS, TIMEOUT_SECONDS)
            assert attempts(connection) == 1
            assert ours.max_connections == 7


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ("", {"SOCKET_TIMEOUT": 3}, (3, TIMEOUT_SECONDS)),
        ("", {"SOCKET_CONNECT_TIMEOUT": 4}, (TIMEOUT_SECONDS, 4)),
        ("", {"CONNECTION_POOL_KWARGS": {"socket_timeout": 3, "socket_connect_timeout": 4}}, (3, 4)),
        ("?socket_timeout=3", {}, (3, TIMEOUT_SECONDS)),
    ],
)
def test_timeouts_of_the_site_hold(query: str, options: dict[str, Any], expected: tuple[float, float]) -> None:
    """Wherever they are set: who sets them knows their network."""
    with override_settings(CACHES=entry(f"redis://127.0.0.1:1/0{query}", **options)):
        connection = pool_of(CacheStore(pointer_seconds=60)).make_connection()
    assert (connection.socket_timeout, connection.socket_connect_timeout) == expected
    assert attempts(connection) == 1


def test_sentinel_finds_the_server_with_our_timeouts(redis_server: RedisServer, tmp_path: Path) -> None:
    """Pointers are saved on the server that a real sentinel names, and the sentinel is asked with short timeouts as well."""
    from django_pglb.testing.binaries import find_redis

    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    monitored = f"sentinel monitor main 127.0.0.1 {redis_server.port} 1\nsentinel auth-pass main {redis_server.password}\n"
    configuration.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n{monitored}")
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", port)],
    }
    process = subprocess.Popen([str(find_redis()), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with (
            override_settings(CACHES=entry(f"redis://:{redis_server.password}@main/0", **options)),
            contextlib.closing(CacheStore(pointer_seconds=60)) as store,
        ):
            connection = pool_of(store).make_connection()
            assert connection.socket_timeout == TIMEOUT_SECONDS
            sentinel = connection.connection_pool.sentinel_manager.sentinels[0].connection_pool.make_connection()
            assert (sentinel.socket_timeout, attempts(sentinel)) == (TIMEOUT_SECONDS, 1)
            wait_until(lambda: _vouched(store), timeout=60, what="the sentinel to name the server")
            store.save("default", [ANN], at(7))
            assert loaded(store, [ANN]) == at(7)
    finally:
        process.kill()
        process.wait()


def _vouched(store: CacheStore) -> bool:
    try:
        store.vouch("default")
    except StoreError:
        return False
    return True
