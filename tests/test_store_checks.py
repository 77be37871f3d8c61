"""What the check of a deployment says of the store."""

from __future__ import annotations

from django.core.checks import run_checks
from django.test import override_settings

from django_pglb.testing import RedisServer, wait_until

from .fix_store import (
    PATIENT,
    Deaf,
    admin,
    entry,
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
