"""What the check of a deployment says of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings

from django_pglb.health.report import StoreReport
from django_pglb.stores import CacheStore, MemoryLost
from django_pglb.stores.locality import LOCAL, is_of_one_machine
from django_pglb.stores.redis import IS_NEW
from django_pglb.stores.rights import NO_INFO, READ_ONLY
from django_pglb.testing import RedisServer, wait_until

from .fix_store import (
    ANN,
    PATIENT,
    Deaf,
    admin,
    at,
    entry,
    loaded,
)


def deploy_warnings() -> list[str]:
    return [message.msg for message in run_checks(tags=["django_pglb"], include_deployment_checks=True) if message.id == "django_pglb.W013"]


def test_check_of_a_deployment_warns_of_eviction(redis_server: RedisServer) -> None:
    """Of each policy that takes pointers, where memory is limited at all; and of none without `--deploy`."""
    with override_settings(CACHES=entry(redis_server.url, **PATIENT)), admin(redis_server) as client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        try:
            client.config_set("maxmemory-policy", "volatile-lru")
            assert deploy_warnings() == []
            client.config_set("maxmemory", "1gb")
            (warning,) = deploy_warnings()
            assert warning.startswith('PGLB["default"]["STORE"]: cache \'default\': maxmemory-policy is volatile-lru')
            assert not [message for message in run_checks(tags=["django_pglb"]) if message.id == "django_pglb.W013"]
            client.config_set("maxmemory-policy", "noeviction")
            assert deploy_warnings() == []
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", before)


def test_only_the_check_of_a_deployment_asks_the_store(deaf_redis: Deaf) -> None:
    """And a store that does not answer it is not judged."""
    url, got = deaf_redis
    with override_settings(CACHES=entry(url)):
        run_checks()
        assert got == []
        assert deploy_warnings() == []
        wait_until(lambda: len(got) == 1, timeout=20, what="the connection")


@contextlib.contextmanager
def as_user(server: RedisServer, *rules: str) -> Iterator[str]:
    """The address of the server for a user with these rights."""
    with admin(server) as client:
        client.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">secret", *rules)
        try:
            yield f"redis://weak:secret@{server.host}:{server.port}/0"
        finally:
            client.execute_command("ACL", "DELUSER", "weak")


NEEDED = ("+mget", "+get", "+set", "+type", "+exists", "+eval", "+info", "+select", "+client", "+hello", "~pglb:1:*")


def look(url: str) -> StoreReport:
    with override_settings(CACHES=entry(url, **PATIENT)), contextlib.closing(CacheStore(pointer_seconds=60)) as store:
        report = store.look("default")
    assert report is not None
    return report


def test_rights_that_the_documentation_names_are_enough(redis_server: RedisServer) -> None:
    """To be well, and to be looked at."""
    with as_user(redis_server, *NEEDED) as url:
        report = look(url)
        assert (report.state, report.why, report.advice) == ("online", IS_NEW, ())
        with override_settings(CACHES=entry(url, **PATIENT)), contextlib.closing(CacheStore(pointer_seconds=60)) as store:
            with pytest.raises(MemoryLost):
                loaded(store, [ANN])
            store.save("default", [ANN], at(8))
            store.vouch("default")
            assert loaded(store, [ANN]) == at(8)


@pytest.mark.parametrize("missing", ["mget", "get", "set", "type", "exists", "eval"])
def test_missing_right_is_named(redis_server: RedisServer, missing: str) -> None:
    """It is the site that cannot use this Redis, whatever else the server answers."""
    with as_user(redis_server, *NEEDED, f"-{missing}") as url:
        report = look(url)
        with override_settings(CACHES=entry(url, **PATIENT)):
            messages = run_checks(tags=["django_pglb"], include_deployment_checks=True)
    assert report.state == "refusing"
    assert report.why.startswith(f"refuses {missing.upper()}")
    assert "ACL SETUSER weak +mget +get +set +type +exists +eval ~pglb:1:*" in report.why
    assert [report.why in message.msg for message in messages if message.id == "django_pglb.E041"] == [True]


def test_keys_that_a_user_may_not_touch_are_named(redis_server: RedisServer) -> None:
    """Its pattern is not ours."""
    with as_user(redis_server, "allcommands", "~cache:*") as url:
        report = look(url)
    assert (report.state, report.why.startswith("refuses MGET and GET")) == ("refusing", True)
    assert "~pglb:1:*" in report.why


def test_user_who_is_not_let_in_is_no_outage(redis_server: RedisServer) -> None:
    """The server answers: with a word about the password, or about what connecting to a database of it takes."""
    with as_user(redis_server, *NEEDED, "-select") as url:
        report = look(url.replace("/0", "/1"))
        assert (report.state, report.why.endswith("): ACL SETUSER weak +select")) == ("refusing", True)
        report = look(url.replace("secret", "wrong"))
        assert (report.state, report.why.startswith("refuses to be connected to (invalid username-password pair")) == ("refusing", True)


def test_redis_without_info_is_well(redis_server: RedisServer) -> None:
    """Only advice needs it."""
    with as_user(redis_server, *NEEDED, "-info") as url:
        report = look(url)
    assert (report.state, report.advice) == ("online", (NO_INFO,))


def test_read_only_copy_is_told_from_a_master(redis_server: RedisServer) -> None:
    """It answers every read, and the site can save nothing."""
    with admin(redis_server) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            report = look(redis_server.url)
        finally:
            client.replicaof("NO", "ONE")
    assert (report.state, report.why) == ("refusing", READ_ONLY)


def test_look_leaves_nothing(redis_server: RedisServer) -> None:
    """Also what it tries to set is not set."""
    look(redis_server.url)
    with admin(redis_server) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("location", "host", "expected"),
    [
        ("redis://127.0.0.1:6379/0", "db.internal", True),
        (["redis://localhost:6379/0", "redis://replica.internal:6379/0"], "10.0.0.1", True),
        ("unix:///run/redis.sock?db=1", "db.internal", True),
        ("redis://:secret@[::1]:6379", "db.internal", True),
        ("redis://127.0.0.1:6379/0", "127.0.0.1", False),
        ("redis://127.0.0.1:6379/0", "/run/postgresql", False),
        ("redis://127.0.0.1:6379/0", "", False),
        ("redis://redis.internal:6379/0", "db.internal", False),
        ("nonsense", "db.internal", False),
        (None, "db.internal", False),
    ],
)
def test_redis_that_each_server_may_have_for_itself_is_told_by_its_address(location: Any, host: str, expected: bool) -> None:
    """It is on this machine, and the database, which all share, is not."""
    assert is_of_one_machine({"LOCATION": location}, {"HOST": host}) is expected


def test_redis_of_each_server_is_warned_of(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the check of a deployment, and by check_replicas."""
    assert LOCAL not in look(redis_server.url).advice
    monkeypatch.setitem(settings.DATABASES["default"], "HOST", "db.internal")
    assert LOCAL in look(redis_server.url).advice
    with override_settings(CACHES=entry(redis_server.url, **PATIENT)):
        found = {message.id for message in run_checks(tags=["django_pglb"], include_deployment_checks=True)}
    assert "django_pglb.W019" in found
    assert "django_pglb.W013" not in found
