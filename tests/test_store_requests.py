"""What users see of a store that is frozen, killed or emptied."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client, override_settings

from django_pglb import runtime
from django_pglb.core.decision import Reason
from django_pglb.stores import MemoryLost
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .fix_store import (
    ANN,
    entry,
    kill_and_restart,
)


@pytest.fixture
def impatient(site: Site) -> Iterator[None]:
    """The site with a cache entry that sets no timeouts."""
    with override_settings(CACHES=entry(site.cluster.redis.url)):
        site.wait_until_online()
        yield


@pytest.mark.usefixtures("impatient")
def test_frozen_store_is_waited_for_once(site: Site, caplog: Any) -> None:
    """Requests with an identity are answered by the primary, none but the first waits, and one line says so; later one that it is over."""
    site.cluster.redis.freeze()
    started = time.monotonic()
    for number in range(40):
        response = Client().get("/newest/", headers={"Authorization": f"Token {number}"})
        assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.STORE_ERROR})
    # Each for itself would have waited 40 times our timeout.
    assert time.monotonic() - started < 5
    site.cluster.redis.thaw()

    def is_served_by_a_replica() -> bool:
        # Acknowledged before the store is believed, which is not yet the end of it.
        Client().post("/write/", {"text": "x"}, headers={"Authorization": "Token y"})
        return Served(Client().get("/newest/", headers={"Authorization": "Token x"})).reasons == {Reason.REPLICA}

    wait_until(is_served_by_a_replica, timeout=60, what="reads on replicas again")
    lines = [record.getMessage() for record in caplog.records if record.name == "django_pglb.store"]
    assert lines == [
        "the pointer store (cache 'default') does not answer: TimeoutError; ON_STORE_ERROR of cluster default applies.",
        "The pointer store of cluster default is well again.",
    ]


@pytest.mark.usefixtures("impatient")
def test_cookie_carries_the_pointer_while_the_store_is_frozen(site: Site) -> None:
    """Every response to a write sets it, also when the store is known to be down; it binds its browser without the store."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    site.cluster.redis.freeze()
    browser = Client()
    for text in ("one", "two"):
        # With an identity, so that there is something to save; read without, so that only the cookie can bind.
        response = browser.post("/write/", {"text": text}, headers={"Authorization": "Token x"})
        assert (response.status_code, "pglb" in response.cookies) == (200, True)
        read = browser.get("/newest/")
        assert (read.json(), Served(read).reasons) == ({"text": text}, {Reason.BEHIND})
    for replica in site.cluster.replicas:
        replica.resume_replay()
    site.wait_until_seen()
    read = browser.get("/newest/")
    assert (read.json(), Served(read).reasons) == ({"text": "two"}, {Reason.REPLICA})
    identified = browser.get("/newest/", headers={"Authorization": "Token x"})
    assert Served(identified).reasons == {Reason.STORE_ERROR}


@pytest.mark.usefixtures("impatient")
def test_other_device_sees_what_was_written_while_the_store_was_frozen(site: Site) -> None:
    """An API client has no cookie: on the primary until the store has everything, and bound by it after that."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    headers = {"Authorization": "Token one"}
    site.cluster.redis.freeze()
    Client().post("/write/", {"text": "x"}, headers=headers)
    read = Client().get("/newest/", headers=headers)
    assert (read.json(), Served(read).reasons) == ({"text": "x"}, {Reason.STORE_ERROR})
    site.cluster.redis.thaw()
    reasons: set[Reason] = set()

    def is_bound() -> bool:
        read = Client().get("/newest/", headers=headers)
        assert read.json() == {"text": "x"}
        reasons.update(Served(read).reasons)
        return Served(read).reasons == {Reason.BEHIND}

    wait_until(is_bound, timeout=60, what="the store to be believed")
    assert reasons == {Reason.STORE_ERROR, Reason.BEHIND}


def test_site_can_prefer_its_replicas_to_its_promise(site: Site, settings: Any) -> None:
    """ON_STORE_ERROR = "replica": also while the store is not believed."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "ON_STORE_ERROR": "replica"}}
    site.wait_until_online()
    site.redis.flushall()
    with pytest.raises(MemoryLost):
        runtime.get_runtime().load("default", [ANN])
    assert Served(Client().get("/newest/", headers={"Authorization": "Token x"})).reasons == {Reason.REPLICA}


def test_nobody_misses_a_write_because_redis_was_restarted_empty(site: Site) -> None:
    """Also who has no cookie: on the primary while the store is not believed."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    headers = {"Authorization": "Token one"}
    Client().post("/write/", {"text": "x"}, headers=headers)
    kill_and_restart(site.cluster.redis)
    read = Client().get("/newest/", headers=headers)
    assert (read.json(), Served(read).reasons) == ({"text": "x"}, {Reason.STORE_ERROR})
    runtime.get_runtime().vouch("default")
    read = Client().get("/newest/", headers=headers)
    assert (read.json(), Served(read).reasons) == ({"text": None}, {Reason.REPLICA})
