"""A store that fails: what a process owes it, and when it is believed again. Two stores stand for two processes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from django_pglb.core.routing_session import UNBOUND, Bound
from django_pglb.stores import CacheStore, MemoryLost, StoreError, debts, recovery
from django_pglb.stores.recovery import Condition
from django_pglb.testing import RedisServer, wait_until

from .fix_store import (
    ANN,
    BOB,
    MakeStore,
    admin,
    at,
    loaded,
    recovery_of,
    take_down,
    wait_until_up,
)


def refuse_writes_for_want_of_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")


def become_a_replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")


def ask_for_a_password(client: redis.Redis) -> None:
    client.config_set("requirepass", "secret")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def be_well(client: redis.Redis, password: str) -> None:
    client.config_set("maxmemory", "0")
    client.replicaof("NO", "ONE")
    client.config_set("requirepass", password)


@pytest.mark.parametrize("trouble", [refuse_writes_for_want_of_memory, become_a_replica, ask_for_a_password])
def test_save_that_the_server_refuses_is_owed_until_it_is_taken(
    redis_server: RedisServer, store: CacheStore, make_store: MakeStore, trouble: Callable[[redis.Redis], None]
) -> None:
    """Whatever the reason: the store counts as down, nothing more is asked of it, and in the end it has the pointer."""
    store.save("default", [BOB], at(3))
    with admin(redis_server) as client:
        try:
            trouble(client)
            with pytest.raises(StoreError, match="does not answer"):
                store.save("default", [ANN], at(7))
            with pytest.raises(StoreError, match="did not answer a moment ago"):
                loaded(store, [BOB])
            with pytest.raises(StoreError):
                store.save("default", [ANN], at(9))
            seen = sum(recovery_of(store).errors.values())
            wait_until(lambda: sum(recovery_of(store).errors.values()) > seen, timeout=60, what="another attempt")
            assert (recovery_of(store).condition, recovery_of(store).owed) == (Condition.DOWN, 1)
        finally:
            be_well(client, redis_server.password)
    wait_until_up(store)
    assert loaded(make_store(), [ANN]) == at(9)
    assert recovery_of(store).owed == 0


def test_dead_server_gets_what_it_is_owed_when_it_is_back(redis_server: RedisServer, store: CacheStore, make_store: MakeStore) -> None:
    """Whatever was saved meanwhile, merged, without anything being asked of the store by a request; but it has lost the rest."""
    redis_server.kill()
    for lsn in (7, 9, 8):
        with pytest.raises(StoreError):
            store.save("default", [ANN], at(lsn))
    assert recovery_of(store).owed == 1
    redis_server.start()
    wait_until_up(store)
    assert recovery_of(store).owed == 0
    with pytest.raises(MemoryLost):
        loaded(store, [ANN])
    store.vouch("default")
    assert loaded(make_store(), [ANN]) == at(9)


def test_nobody_reads_past_what_another_process_owes(redis_server: RedisServer, store: CacheStore, make_store: MakeStore) -> None:
    """Both owe a save during a freeze: when one of them reads again, the other has paid."""
    other = make_store()
    assert loaded(store, [BOB]) == loaded(other, [BOB]) == UNBOUND
    redis_server.freeze()
    for debtor in (other, store):
        with pytest.raises(StoreError, match="does not answer"):
            debtor.save("default", [ANN], at(1))
    # Not even sent, while the other's attempt is answered as soon as the server runs.
    with pytest.raises(StoreError, match="did not answer a moment ago"):
        store.save("default", [BOB], at(9))
    redis_server.thaw()

    def read() -> Bound | None:
        try:
            return loaded(other, [BOB])
        except StoreError:
            return None

    seen: list[Bound] = []
    wait_until(lambda: bool(seen.extend(bound for bound in [read()] if bound is not None) or seen), timeout=60, what="a read")
    assert seen == [at(9)]


def test_store_that_comes_back_takes_saves_before_it_is_believed(
    redis_server: RedisServer, store: CacheStore, make_store: MakeStore
) -> None:
    """In its grace a save is acknowledged and a load refused."""
    redis_server.freeze()
    take_down(store)
    redis_server.thaw()
    wait_until(lambda: recovery_of(store).condition is Condition.RECOVERING, timeout=60, what="the store to answer")
    store.save("default", [ANN], at(7))
    with pytest.raises(StoreError, match="has just come back"):
        loaded(store, [ANN])
    assert loaded(make_store(), [ANN]) == at(7)
    wait_until_up(store)
    assert loaded(store, [ANN]) == at(7)


def test_store_that_fails_in_its_grace_is_down_again(redis_server: RedisServer, store: CacheStore) -> None:
    """And its thread goes on until everything is paid."""
    redis_server.freeze()
    take_down(store)
    redis_server.thaw()
    wait_until(lambda: recovery_of(store).condition is Condition.RECOVERING, timeout=60, what="the store to answer")
    redis_server.freeze()
    with pytest.raises(StoreError, match="does not answer"):
        store.save("default", [ANN], at(7))
    with pytest.raises(StoreError, match="did not answer a moment ago"):
        store.save("default", [BOB], at(9))
    assert (recovery_of(store).condition, recovery_of(store).owed) == (Condition.DOWN, 2)
    redis_server.thaw()
    wait_until_up(store)
    assert (loaded(store, [ANN]), loaded(store, [BOB])) == (at(7), at(9))


def test_thread_lives_only_while_the_store_is_not_well(redis_server: RedisServer, store: CacheStore) -> None:
    """None before the first failure, one during an outage however many fail, none after it."""

    def threads() -> int:
        return sum(thread.name == "django-pglb-store-default" for thread in threading.enumerate())

    loaded(store, [ANN])
    assert threads() == 0
    redis_server.freeze()
    failing = [threading.Thread(target=take_down, args=(store,)) for _ in range(8)]
    for thread in failing:
        thread.start()
    for thread in failing:
        thread.join()
    assert threads() == 1
    redis_server.thaw()
    wait_until_up(store)
    wait_until(lambda: threads() == 0, timeout=20, what="the thread to end")


def test_owing_too_much_is_a_loss_of_memory(
    redis_server: RedisServer, store: CacheStore, make_store: MakeStore, monkeypatch: Any, caplog: Any
) -> None:
    """What had to be given up is missing in the store, so nobody believes it, and one line says so."""
    monkeypatch.setattr(debts, "MOST_OWED", 3)
    redis_server.freeze()
    for number in range(9):
        with pytest.raises(StoreError):
            store.save("default", [("user", str(number))], at(7))
    assert [record.message for record in caplog.records if "given up" in record.message] == [
        "More than 3 saves are owed to cache 'default': the oldest are given up."
    ]
    redis_server.thaw()
    wait_until_up(store)
    for reader in (store, make_store()):
        with pytest.raises(MemoryLost):
            loaded(reader, [("user", "0")])


class Asking(logging.Handler):
    """Does something whenever something is logged, as a handler does that writes to the database."""

    def __init__(self, ask: Callable[[], object]) -> None:
        super().__init__()
        self._ask = ask

    def emit(self, record: logging.LogRecord) -> None:
        self._ask()


def test_handler_of_the_log_may_ask_the_store(redis_server: RedisServer, store: CacheStore, monkeypatch: Any) -> None:
    """Nothing of the user's runs under a lock of ours."""
    monkeypatch.setattr(debts, "MOST_OWED", 3)
    redis_server.freeze()
    handler = Asking(lambda: take_down_again(store))
    recovery.log.addHandler(handler)

    def save() -> None:
        for number in range(9):
            with pytest.raises(StoreError):
                store.save("default", [("user", str(number))], at(7))

    thread = threading.Thread(target=save, daemon=True)
    thread.start()
    thread.join(60)
    recovery.log.removeHandler(handler)
    assert not thread.is_alive()


def take_down_again(store: CacheStore) -> None:
    with pytest.raises(StoreError):
        store.save("default", [BOB], at(7))


def test_more_than_one_message_of_debts_is_paid(
    redis_server: RedisServer, store: CacheStore, make_store: MakeStore, monkeypatch: Any
) -> None:
    """An attempt stays short, and all is paid in one go."""
    monkeypatch.setattr(recovery, "CHUNK", 10)
    people = [("user", str(number)) for number in range(35)]
    redis_server.freeze()
    for person in people:
        with pytest.raises(StoreError):
            store.save("default", [person], at(7))
    assert recovery_of(store).owed == 35
    redis_server.thaw()
    wait_until_up(store)
    assert all(loaded(make_store(), [person]) == at(7) for person in (people[0], people[-1]))
