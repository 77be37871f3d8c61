"""A store that has lost what it held. Each store stands for a process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import override_settings

from django_pglb.core.routing_session import UNBOUND
from django_pglb.stores import CacheStore, MemoryLost, StoreError, peers
from django_pglb.stores.peers import DIFFER
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


def differs(store: CacheStore) -> bool:
    report = store.look("default")
    assert report is not None
    return DIFFER in report.advice


OURS = settings.SECRET_KEY


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each load reads what the peers say."""
    monkeypatch.setattr(peers, "SECONDS_BETWEEN_LOOKS", 0.0)


@pytest.mark.usefixtures("attentive")
def test_process_with_another_secret_is_noticed_by_both(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Neither finds what the other has saved. The first one is told when it asks again."""
    store, other = make_store(), make_store()
    store.vouch("default")
    loaded(store, [ANN])
    assert not differs(store)
    with override_settings(SECRET_KEY="another"):
        for _ in range(3):
            with pytest.raises(MemoryLost):
                loaded(other, [ANN])
        assert differs(other)
    assert differs(store)
    assert [record.message for record in caplog.records] == [DIFFER]
    for _ in range(3):
        loaded(store, [ANN])
    assert [record.message for record in caplog.records] == [DIFFER] * 2


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("new_first", [True, False])
def test_secret_that_is_being_changed_is_no_other_one(make_store: MakeStore, caplog: pytest.LogCaptureFixture, new_first: bool) -> None:
    """Processes with the former one go on for a while, and cannot know the new one."""
    old, new = make_store(), make_store()
    old.vouch("default")
    for is_new in (new_first, not new_first) * 3:
        with override_settings(**({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": [OURS]} if is_new else {})):
            loaded(new if is_new else old, [ANN])
            assert not differs(new if is_new else old)
    assert caplog.records == []


@pytest.mark.usefixtures("attentive")
def test_other_site_in_the_same_redis_may_have_another_secret(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a database of its own."""
    store, other = make_store(), make_store()
    store.vouch("default")
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", "blog")
    with override_settings(SECRET_KEY="another"):
        other.vouch("default")
        assert loaded(other, [ANN]) == UNBOUND
        assert not differs(other)
    assert caplog.records == []


@pytest.mark.usefixtures("attentive")
def test_what_is_said_to_peers_costs_no_message_and_ends_with_them(redis_server: RedisServer, store: CacheStore) -> None:
    """It travels with a load or a save where it is missing, and is forgotten minutes after the last process."""
    with admin(redis_server) as client:
        (key,) = client.keys("*:peers")
        before = client.info("commandstats")["cmdstat_eval"]["calls"]
        for _ in range(5):
            loaded(store, [ANN])
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == before
        client.delete(key)
        for _ in range(5):
            loaded(store, [ANN])
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == before + 1
        assert 0 < client.pttl(key) <= 180_000


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("stored", [b"nonsense", b"\n\n 1 2", b"\xff" * 100, b"0" * 5000])
def test_nonsense_in_the_place_of_what_peers_say_is_nobodys_trouble(redis_server: RedisServer, store: CacheStore, stored: bytes) -> None:
    """It gives way."""
    with admin(redis_server) as client:
        (key,) = client.keys("*:peers")
        client.set(key, stored)
        assert [loaded(store, [ANN]) for _ in range(3)] == [UNBOUND] * 3
        assert b"nonsense" not in client.get(key)
    assert not differs(store)


def test_pointers_are_read_alone_as_long_as_the_peers_were_heard(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they say is read with the first load, and again after a while."""
    asked: list[int] = []
    store = make_store()
    store.vouch("default")
    client = store._pointers._client
    ask = client.ask
    monkeypatch.setattr(client, "ask", lambda commands: asked.append(len(commands[0])) or ask(commands))
    for _ in range(4):
        loaded(store, [ANN])
    # MGET, ann's key and the memory's; the first time the peers' as well.
    assert asked == [4, 3, 3, 3]
    monkeypatch.setattr(store._pointers._peers, "_look_at", 0.0)
    loaded(store, [ANN])
    assert asked[-1] == 4
