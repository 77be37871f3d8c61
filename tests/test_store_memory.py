"""A store that has lost what it held. Each store stands for a process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import override_settings

from django_pglb.core.routing_session import UNBOUND
from django_pglb.stores import CacheStore, MemoryLost, StoreError
from django_pglb.testing import RedisServer, wait_until

from .fix_store import (
    ANN,
    BOB,
    MakeStore,
    admin,
    at,
    flush,
    kill_and_restart,
    loaded,
    wait_until_up,
)


@pytest.mark.parametrize("lose", [kill_and_restart, flush])
def test_store_that_lost_its_memory_is_not_believed_for_sticky_seconds(
    redis_server: RedisServer, store: CacheStore, make_store: MakeStore, lose: Callable[[RedisServer], None]
) -> None:
    """By any process, also by one that looks later, also for what was saved since; then it is believed again."""
    other = make_store()
    store.sticky_seconds = other.sticky_seconds = 3
    store.save("default", [ANN], at(7))
    assert loaded(other, [ANN]) == at(7)
    lose(redis_server)
    with pytest.raises(StoreError):
        loaded(store, [ANN])
    wait_until_up(store)
    other.save("default", [BOB], at(5))
    for reader in (store, other, make_store()):
        with pytest.raises(MemoryLost):
            loaded(reader, [BOB])
    wait_until(lambda: _believed(other), timeout=60, what="the store to be believed again")
    assert (loaded(store, [BOB]), loaded(store, [ANN])) == (at(5), UNBOUND)


def _believed(store: CacheStore) -> bool:
    try:
        loaded(store, [ANN])
    except MemoryLost:
        return False
    return True


def test_saving_does_not_make_a_store_look_as_if_it_remembered(redis_server: RedisServer, make_store: MakeStore) -> None:
    """A new store is one that may have lost anything, whatever was saved there first."""
    store = make_store()
    store.save("default", [ANN], at(7))
    with pytest.raises(MemoryLost):
        loaded(store, [ANN])
    store.vouch("default")
    assert loaded(store, [ANN]) == at(7)


def test_processes_that_notice_a_loss_together_open_one_window(redis_server: RedisServer, make_store: MakeStore) -> None:
    """It begins with the first, and none of them prolongs it or ends it."""
    stores = [make_store() for _ in range(8)]

    def read(store: CacheStore) -> None:
        with pytest.raises(MemoryLost):
            loaded(store, [ANN])

    with admin(redis_server) as client:
        read(stores[0])
        (window,) = client.keys("*:window")
        assert 29_000 < client.pttl(window) <= 30_000
        client.pexpire(window, 20_000)  # as if some time had passed
        threads = [threading.Thread(target=read, args=(store,)) for store in stores * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0 < client.pttl(window) <= 20_000


def test_clusters_lose_their_memory_each_for_itself(store: CacheStore) -> None:
    """To vouch for one says nothing of another."""
    assert loaded(store, [ANN]) == UNBOUND
    with pytest.raises(MemoryLost):
        store.load("analytics", [ANN])


def test_rotated_secret_is_a_loss_only_without_fallback(store: CacheStore) -> None:
    """With one, everything is still found; without, nothing is."""
    store.save("default", [ANN], at(7))
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert loaded(store, [ANN]) == at(7)
    with override_settings(SECRET_KEY="new"):
        # Taken over by the load before.
        assert loaded(store, [BOB]) == UNBOUND
    with override_settings(SECRET_KEY="newer"), pytest.raises(MemoryLost):
        loaded(store, [ANN])


def test_key_of_a_wrong_type_is_one_readers_trouble(redis_server: RedisServer, store: CacheStore) -> None:
    """It is as good as gone, the store is well for everybody else, and the next save puts it right."""
    store.save("default", [ANN], at(7))
    with admin(redis_server) as client:
        (key,) = (key for key in client.keys("pglb:1:*") if b"{" not in key)
        client.delete(key)
        client.lpush(key, "x")
    assert loaded(store, [ANN]) == UNBOUND
    store.save("default", [BOB], at(6))
    assert loaded(store, [BOB]) == at(6)
    store.save("default", [ANN], at(5))
    assert loaded(store, [ANN]) == at(5)
