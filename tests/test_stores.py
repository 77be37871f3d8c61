"""Where pointers live: on a real Redis, a real Redis Cluster, and nowhere."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import Client, override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_pglb import current_decisions, export_pointer, routing_session
from django_pglb.core.decision import Reason
from django_pglb.core.lsn import ANYBODY, SEVERAL_SYSTEMS, UNKNOWN_SYSTEM, Pointer
from django_pglb.core.routing_session import UNBOUND, Bound
from django_pglb.stores import CacheStore, MemoryLost, StoreError
from django_pglb.stores.base import VALUE_LENGTH, decode, encode, store_key
from django_pglb.stores.carried import sign, unsign
from django_pglb.stores.debts import Save
from django_pglb.stores.redis import RedisPointers
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .fix_store import loaded
from .guestbook.models import Entry

ANN = ("user", "1")
SECONDS = st.integers(0, 9_999_999_999_999).map(lambda ms: ms / 1000)
POINTERS = st.builds(Pointer, st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1), SECONDS, st.integers(0, 2**64 - 1))
BOUNDS = st.builds(Bound, st.none() | POINTERS, SECONDS)


def at(lsn: int, *, pinned_until: float = 0.0, timeline: int = 1) -> Bound:
    return Bound(Pointer(timeline, lsn, 1.0), pinned_until)


@pytest.fixture
def store(site: Site) -> Iterator[CacheStore]:
    with contextlib.closing(CacheStore(pointer_seconds=3600)) as store:
        yield store


@given(BOUNDS)
def test_stored_text_round_trips(bound: Bound) -> None:
    """Every bound survives being stored, at a fixed width."""
    text = encode(bound)
    assert len(text) == VALUE_LENGTH
    assert decode(text) == bound


@given(POINTERS, POINTERS)
def test_text_order_is_pointer_order(one: Pointer, other: Pointer) -> None:
    """The script compares text, so the text must order as the pointers do."""
    assert (encode(Bound(one))[:24] < encode(Bound(other))[:24]) == (one[:2] < other[:2])


def test_text_from_before_pointers_named_their_system_is_read() -> None:
    """It is compared by its position, as it was, for the hour that it lives."""
    text = encode(Bound(Pointer(3, 0x1000, 2.0), 4.0))
    assert decode(text[:50]) == decode(text) == Bound(Pointer(3, 0x1000, 2.0, UNKNOWN_SYSTEM), 4.0)


OLD, NEW = 7000000000000000001, 7000000000000000002


def of(system: int, lsn: int, pinned_until: float = 0.0) -> Bound:
    return Bound(Pointer(1, lsn, 1.0, system), pinned_until)


PIN = Bound(None, 60.0)


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ([of(OLD, 800), of(NEW, 80)], of(NEW, 80)),
        ([of(OLD, 800, 50.0), of(NEW, 80, 40.0)], of(NEW, 80, 50.0)),
        ([of(OLD, 800), of(NEW, 80), of(NEW, 72)], of(NEW, 80)),
        ([of(OLD, 800), PIN], of(OLD, 800, 60.0)),
        ([PIN, of(NEW, 80)], of(NEW, 80, 60.0)),
        ([of(UNKNOWN_SYSTEM, 800), of(NEW, 80)], of(NEW, 80)),
        ([of(NEW, 80), of(UNKNOWN_SYSTEM, 72)], of(NEW, 80)),
        ([of(NEW, 80), of(UNKNOWN_SYSTEM, 88)], of(NEW, 88)),
        ([of(SEVERAL_SYSTEMS, 800), of(NEW, 80)], of(NEW, 80)),
        ([of(NEW, 80 | 3), of(NEW, 80 | 5)], of(NEW, 80 | ANYBODY)),
    ],
)
def test_pointer_of_another_system_gives_way_to_what_was_taken_now(store: CacheStore, saved: list[Bound], found: Bound) -> None:
    """In the store, in what is owed to it, and in a cache that is no Redis alike. A pin stays."""
    for bound in saved:
        store.save("default", [ANN], bound)
    assert loaded(store, [ANN]) == found
    owed = [Save("key", encode(bound), 1000) for bound in saved]
    assert decode(reduce(Save.merged, owed).value) == found


def test_stored_text_without_system_is_merged(site: Site, store: CacheStore) -> None:
    """Nothing that an older version has saved is lost."""
    store.save("default", [ANN], at(16, pinned_until=50.0))
    (key,) = site.pointer_keys()
    site.redis.set(key, site.redis.get(key)[:50])
    assert loaded(store, [ANN]) == at(16, pinned_until=50.0)
    store.save("default", [ANN], at(8))
    assert loaded(store, [ANN]) == at(16, pinned_until=50.0)


@pytest.mark.parametrize("text", ["", "0", "F" * 50, "0" * 49, "0" * 51, "0" * 24 + "x" * 26, " " + "0" * 49, "9" * 100_000])
def test_anything_but_a_stored_pointer_is_refused(text: str) -> None:
    """Garbage in the store raises, and is never guessed at."""
    with pytest.raises(ValueError, match="not a stored pointer"):
        decode(text)


@given(st.dictionaries(st.from_regex(r"[a-z=&:,;% é]{1,9}", fullmatch=True), BOUNDS, max_size=3))
def test_carried_pointers_round_trip(bounds: dict[str, Bound]) -> None:
    """What was signed is what is read, whatever the aliases are; and a header that lists several texts can hold it."""
    text = sign(bounds)
    assert unsign(text, max_age=10) == bounds
    assert re.fullmatch(r"[!-+\--~]*", text)


@pytest.mark.parametrize("text", ["", "x", "default=" + "0" * 50, "x" * 5000])
def test_unsigned_pointers_are_refused(text: str) -> None:
    """Nobody but this site makes pointers."""
    with pytest.raises(ValueError, match="signed pointer"):
        unsign(text, max_age=10)


def test_expired_pointers_are_refused() -> None:
    """Older than max_age is as good as forged."""
    with pytest.raises(ValueError, match="expired"):
        unsign(sign({"default": at(1)}), max_age=-1)


def test_keys_do_not_collide_and_depend_on_the_secret() -> None:
    """Parts are length-prefixed: ("a", "b:c") is not ("a:b", "c")."""
    keys = {
        store_key(*args) for args in [("p", ("a", "bc"), "s"), ("p", ("ab", "c"), "s"), ("pa", ("b", "c"), "s"), ("p", ("a", "bc"), "t")]
    }
    assert len(keys) == 4


def test_pointer_never_moves_back(store: CacheStore) -> None:
    """Saving an earlier one changes nothing, and a pin and a pointer are kept apart."""
    store.save("default", [ANN], at(2**60 + 1))
    store.save("default", [ANN], at(2**60, pinned_until=50.0))
    store.save("default", [ANN], Bound(None, 40.0))
    assert loaded(store, [ANN]) == at(2**60 + 1, pinned_until=50.0)


def test_later_timeline_wins(store: CacheStore) -> None:
    """Whatever the positions."""
    store.save("default", [ANN], at(1, timeline=2))
    store.save("default", [ANN], at(2**62, timeline=1))
    assert loaded(store, [ANN]) == at(1, timeline=2)


def test_concurrent_saves_keep_the_greatest(store: CacheStore) -> None:
    """Eight threads, four hundred saves in random order: the greatest is there in the end."""
    # Multiples of eight, as positions are: the bits below say on which host one was seen.
    lsns = random.sample(range(2**53, 2**53 + 80_000, 8), 400)

    def save(part: list[int]) -> None:
        for lsn in part:
            store.save("default", [ANN], at(lsn))
        caches.close_all()

    threads = [threading.Thread(target=save, args=(lsns[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded(store, [ANN]) == at(max(lsns))


def test_every_save_renews_the_life_of_the_pointer(site: Site, store: CacheStore) -> None:
    """Also one that is not greater."""
    CacheStore(pointer_seconds=10).save("default", [ANN], at(5))
    (key,) = site.pointer_keys()
    assert int(site.redis.pttl(key)) <= 10_000
    store.save("default", [ANN], at(4))
    assert int(site.redis.pttl(key)) > 3_500_000


def test_several_identities_merge_in_one_round_trip(site: Site, store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading two identities and saving two are one message each: what a client sends at once, it flushes once."""
    messages: list[int] = []
    send = redis.Connection.send_packed_command

    def counted(self: redis.Connection, *arguments: Any, **options: Any) -> Any:
        messages.append(1)
        return send(self, *arguments, **options)

    loaded(store, [ANN])  # the connection is open now, and greetings are over
    monkeypatch.setattr(redis.Connection, "send_packed_command", counted)
    store.save("default", [("a", "1"), ("b", "2")], at(7))
    assert len(messages) == 1
    store.save("default", [("b", "2")], at(9))
    assert loaded(store, [("a", "1"), ("b", "2"), ("c", "3")]) == at(9)
    assert len(messages) == 3
    assert loaded(store, [("a", "1")]) == at(7)
    assert loaded(store, []) == UNBOUND


def test_former_secret_keys_are_looked_up(store: CacheStore, settings: Any) -> None:
    """Rotating SECRET_KEY loses nobody's pointer."""
    store.save("default", [ANN], at(7))
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"
    assert loaded(store, [ANN]) == at(7)


def test_garbage_in_the_store_is_a_store_error(site: Site, store: CacheStore) -> None:
    """It is not believed, and not silently taken for "no pointer"."""
    store.save("default", [ANN], at(7))
    (key,) = site.pointer_keys()
    site.redis.set(key, "FFFFFFFF/FFFFFFFF")
    with pytest.raises(StoreError):
        loaded(store, [ANN])


def test_dead_store_sends_identified_readers_to_the_primary(site: Site) -> None:
    """Who has an identity reads from the primary (store_error), who has none from a replica; nobody gets an error."""
    browser = Client()
    browser.post("/write/", {"text": "x"})
    site.cluster.redis.kill()
    caches.close_all()
    identified = Client().get("/newest/", headers={"Authorization": "Token x"})
    assert (identified.json(), Served(identified).reasons) == ({"text": "x"}, {Reason.STORE_ERROR})
    assert Served(Client().get("/newest/")).reasons == {Reason.REPLICA}
    for replica in site.cluster.replicas:
        replica.pause_replay()
    assert browser.post("/write/", {"text": "y"}).status_code == 200
    response = browser.get("/newest/")
    assert (response.json(), Served(response).aliases) == ({"text": "y"}, {"default"})
    site.cluster.redis.start()


def test_cookie_store_needs_no_server(site: Site, settings: Any) -> None:
    """The browser that wrote is bound by its cookie alone; Redis is never asked."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "STORE": {"BACKEND": "django_pglb.stores.CookieStore"}, "COOKIE": False}}
    site.wait_until_online()
    for replica in site.cluster.replicas:
        replica.pause_replay()
    browser = Client()
    browser.post("/write/", {"text": "mine"})
    response = browser.get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": "mine"}, {Reason.BEHIND})
    assert site.pointer_keys() == []


def test_exported_pointer_binds_another_unit_of_work(site: Site) -> None:
    """What one unit wrote, another one sees that was given its pointer; a forged one is refused."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session():
        Entry.objects.create(text="x")
        pointer = export_pointer()
    with routing_session(pointer=pointer):
        assert Entry.objects.count() == 1
        assert [(d.alias, d.reason) for d in current_decisions()] == [("default", Reason.BEHIND)]
    with routing_session():
        assert Entry.objects.count() == 0
    with pytest.raises(ValueError, match="signed pointer"), routing_session(pointer=pointer[:-1] + "?"):
        pass
    with pytest.raises(TypeError, match="the text that export_pointer"):
        routing_session(pointer=pointer.encode())  # type: ignore[arg-type]


@pytest.fixture
def redis_cluster(site: Site, tmp_path: Path) -> Iterator[str]:
    """A Redis Cluster of one node that owns every slot: what a client may not send, it refuses as any cluster does."""
    from django_pglb.testing.account import server_account
    from django_pglb.testing.binaries import find_redis, readable_redis
    from django_pglb.testing.ports import free_port

    account = server_account()
    home = site.cluster.folder / f"redis-cluster-{tmp_path.name}"
    home.mkdir()
    # Its other port, which the nodes of a cluster speak on, is this far above.
    port = next(port for port in iter(free_port, None) if port + 10_000 not in _used_ports())
    # Not the cluster's own folder, where a copy may be running already.
    program = readable_redis(find_redis(), account, home)
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--dir", str(home), "--save", ""]
    process = subprocess.Popen([str(program), *arguments, "--cluster-config-file", str(home / "nodes.conf")], stdout=subprocess.DEVNULL)
    node = redis.Redis(port=port)
    try:
        wait_until(lambda: _answers(node), timeout=20, what="the cluster's node to answer")
        node.execute_command("CLUSTER", "ADDSLOTSRANGE" if _is_7(node) else "ADDSLOTS", *((0, 16383) if _is_7(node) else range(16384)))
        wait_until(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok", timeout=20, what="the cluster to be ok")
        yield f"redis://127.0.0.1:{port}"
    finally:
        node.close()
        process.kill()
        process.wait()


def _used_ports() -> set[int]:
    with contextlib.suppress(FileNotFoundError):
        return {int(line.split()[1].rpartition(":")[2], 16) for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    return set()


def _answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


def _is_7(node: redis.Redis) -> bool:
    return int(str(node.info("server")["redis_version"]).split(".")[0]) >= 7


CLUSTER_CLIENT = {"REDIS_CLIENT_CLASS": "redis.cluster.RedisCluster", "CONNECTION_FACTORY": "tests.redis_cluster.ClusterFactory"}


@pytest.mark.parametrize("options", [CLUSTER_CLIENT, {}], ids=["cluster client", "plain client"])
def test_redis_cluster_works(redis_cluster: str, options: dict[str, str]) -> None:
    """Several identities, whose keys live in different slots, in one pipeline each way. A plain client will do where one node has all."""
    cluster = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis_cluster, "OPTIONS": options}
    identities = [("user", str(number)) for number in range(20)]
    with override_settings(CACHES={"default": cluster}):
        store = CacheStore(pointer_seconds=60)
        store.save("default", identities, at(9))
        store.save("default", identities[:1], at(8))
        with pytest.raises(MemoryLost):
            loaded(store, identities)
        store.vouch("default")
        assert loaded(store, identities) == at(9)
        assert (report := store.look("default")) is not None
        assert (report.state, report.why, report.advice) == ("online", "", ())
        assert isinstance(store._pointers, RedisPointers)
        # How a store that was down is asked whether it answers.
        assert store._pointers._offer(()) == ()
        caches.close_all()


@pytest.mark.parametrize("base", [0x1000, 0x1008])
@pytest.mark.parametrize("marks", [(2, 3), (3, 2), (0, 5), (5, 0), (7, 1), (1, 7), (4, 4), (8, 3)])
def test_position_seen_on_two_hosts_is_stored_as_nobodys(store: CacheStore, base: int, marks: tuple[int, int]) -> None:
    """The store merges as Python does, whichever comes first; an exact position gives way to a marked one."""
    one, other = (at(base + mark) for mark in marks)
    store.save("default", [ANN], one)
    store.save("default", [ANN], other)
    assert loaded(store, [ANN]) == one.merged(other)
