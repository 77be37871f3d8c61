"""Two sites on one host, or on one Redis, which know nothing of each other."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from django.test import Client, override_settings

from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import UNBOUND
from django_pglb.stores import CacheStore, MemoryLost
from django_pglb.testing import RedisServer

from .fix_site import Served, Site
from .fix_store import ANN, PATIENT, admin, at, entry, loaded


def test_cookie_of_a_site_with_a_session_cookie_of_its_own_has_a_name_of_its_own(site: Site) -> None:
    """Neither replaces the other's, and each is read by its own site."""
    site.pause_replay()
    browser = Client()
    with override_settings(SESSION_COOKIE_NAME="shop"):
        browser.post("/write/", {"text": "in the shop"})
        assert "pglb" not in browser.cookies
        mine = browser.cookies["pglb_shop"].value
    browser.post("/write/", {"text": "beside it"})
    assert browser.cookies["pglb_shop"].value == mine
    only_shop = Client()
    only_shop.cookies["pglb_shop"] = mine
    assert Served(only_shop.get("/newest/")).reasons == {Reason.REPLICA}
    with override_settings(SESSION_COOKIE_NAME="shop"):
        assert Served(only_shop.get("/newest/")).reasons == {Reason.BEHIND}


def test_sites_with_one_redis_and_one_key_are_kept_apart_by_their_prefix(redis_server: RedisServer) -> None:
    """Pointers, and whether the store remembers."""

    def store(prefix: str) -> Any:
        caches = entry(redis_server.url, **PATIENT)
        caches["default"]["KEY_PREFIX"] = prefix
        with override_settings(CACHES=caches):
            return contextlib.closing(CacheStore(pointer_seconds=60))

    with store("shop") as shop, store("blog") as blog, store("") as plain:
        shop.vouch("default")
        for other in (blog, plain):
            with pytest.raises(MemoryLost):
                loaded(other, [ANN])
            other.vouch("default")
        shop.save("default", [ANN], at(8))
        assert loaded(shop, [ANN]) == at(8)
        assert loaded(blog, [ANN]) == loaded(plain, [ANN]) == UNBOUND
    with admin(redis_server) as client:
        assert all(key.startswith((b"shop:pglb:1:", b"blog:pglb:1:", b"pglb:1:")) for key in client.scan_iter())
