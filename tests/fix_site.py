"""The test site on a real cluster: Django in this process, and what the servers themselves say of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings

from django_pglb import runtime
from django_pglb.core.decision import DecisionCount, Reason
from django_pglb.core.topology import HostState
from django_pglb.identity import session_owners, token_owners
from django_pglb.testing import Cluster, wait_until
from django_pglb.testing.postgres import PostgresHost

NAME = "site"
# Application name, database, then PostgreSQL's own "LOG:  statement: …".
LOG_PREFIX = "%a|%d|"
ALIASES = {"default": "primary", "replica1": "replica1", "replica2": "replica2"}


# What `flush` does, for the few tables that a test has written to, and without making content types and permissions anew.
FORGET_ROWS = """
    DO $$
    DECLARE
        kept text[] := '{django_migrations, django_content_type, auth_permission}';
        place regclass;
        has_rows boolean;
    BEGIN
        FOR place IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> ALL (kept) LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', place) INTO has_rows;
            IF has_rows THEN
                EXECUTE format('TRUNCATE %s RESTART IDENTITY CASCADE', place);
            END IF;
        END LOOP;
    END $$
"""


class Served:
    """Who answered a request, and why, as its `Server-Timing` header says."""

    def __init__(self, response: Any) -> None:
        header = response.headers.get("Server-Timing", "")
        found = re.findall(r'pglb;desc="(\S+) (\S+) (\d+)"', header)
        self.decisions = [DecisionCount(alias, Reason(reason), int(count)) for alias, reason, count in found]
        self.aliases = {decision.alias for decision in self.decisions}
        self.reasons = {decision.reason for decision in self.decisions}


class Site:
    """The test site, its cluster, and questions to the servers."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.redis = redis.Redis.from_url(cluster.redis.url)

    def forget_pointers(self) -> None:
        """Empty the store as if nobody had ever written: it has lost nothing."""
        self.redis.flushall()
        runtime.get_runtime().vouch("default")

    def pointer_keys(self) -> list[str]:
        """Return the keys of what is remembered of somebody, without those that the store keeps for itself."""
        keys = [key.decode() for key in self.redis.scan_iter()]
        return [key for key in keys if not key.startswith("pglb:1:{")]

    def host(self, alias: str) -> PostgresHost:
        return next(host for host in self.cluster.hosts if host.name == ALIASES[alias])

    def statements(self, alias: str, since: int = 0) -> list[str]:
        """Return the messages that a host has received for the site, the checker's apart, from an offset in its log on."""
        log = self.host(alias).read_log()[since:]
        entries = re.findall(
            rf"^(.*?)\|{NAME}\|LOG:  (?:statement|execute [^:]*): (.*?)(?=^\S*?\|\S*?\||\Z)", log, re.MULTILINE | re.DOTALL
        )
        return [text.strip() for application, text in entries if application != "django-pglb-checker"]

    def log_end(self, alias: str) -> int:
        return len(self.host(alias).read_log())

    def pause_replay(self) -> None:
        """Let the replicas have all that there is, and nothing that comes."""
        self.wait_until_seen()
        for replica in self.cluster.replicas:
            replica.pause_replay()

    def resume_replay(self) -> None:
        """Let both replicas go on."""
        for replica in self.cluster.replicas:
            replica.resume_replay()

    def wait_for_states(self, **expected: HostState) -> None:
        """Wait until the checker of this process sees the hosts so."""
        wait_until(lambda: self._states(expected) == expected, what=f"the checker to see {expected}", timeout=60)

    def wait_until_online(self) -> None:
        self.cluster.wait_until_replicas_caught_up()
        self.wait_for_states(replica1=HostState.ONLINE, replica2=HostState.ONLINE)

    def wait_until_seen(self, lsn: int | None = None) -> None:
        """Wait until the checker of this process has seen both replicas at a position, that of the primary now unless one is given.

        That they are there is not enough: a look just before may let them seem so far behind that nobody asks them until the next one.
        """
        wanted = self.cluster.primary.write_lsn if lsn is None else lsn
        for replica in self.cluster.replicas:
            replica.wait_for_lsn(wanted)
        wait_until(lambda: self._least_replayed() >= wanted, timeout=60, what="the checker to see both replicas there")

    def _least_replayed(self) -> int:
        hosts = runtime.get_runtime().topology("default").by_alias
        return min(hosts[alias].replay_lsn or 0 for alias in ("replica1", "replica2"))

    def _states(self, expected: dict[str, HostState]) -> dict[str, HostState]:
        topology = runtime.get_runtime().topology("default")
        return {alias: topology.by_alias[alias].state for alias in expected}


@pytest.fixture(scope="session")
def site_cluster() -> Iterator[Cluster]:
    """A cluster of three that logs every statement, and Redis."""
    with Cluster(replicas=2, redis=True, settings={"log_statement": "all", "log_line_prefix": LOG_PREFIX}) as cluster:
        cluster.create_database(NAME)
        yield cluster


@pytest.fixture(scope="session")
def migrated_site(site_cluster: Cluster, django_db_blocker: Any) -> Iterator[Site]:
    """The site, pointed at the cluster and migrated."""
    for alias, name in ALIASES.items():
        port = next(host.port for host in site_cluster.hosts if host.name == name)
        settings.DATABASES[alias]["PORT"] = connections[alias].settings_dict["PORT"] = port
    at_redis = {"default": {**settings.CACHES["default"], "LOCATION": site_cluster.redis.url}}
    with override_settings(CACHES=at_redis), django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        connections.close_all()
        yield Site(site_cluster)
        runtime.reset()
        connections.close_all()


@pytest.fixture
def site(migrated_site: Site) -> Iterator[Site]:
    """The site with nothing written, nobody remembered, and both replicas online."""
    site = migrated_site
    site.cluster.heal()
    _forget_everything(site)
    with site.host("default").connect(dbname=NAME) as connection:
        connection.execute(FORGET_ROWS)
    site.wait_until_online()
    site.forget_pointers()
    yield site
    _forget_everything(site)


def _forget_everything(site: Site) -> None:
    connections.close_all()
    # Asynchronous code runs its queries in a thread that outlives the test, and the next one may find the server restarted.
    asyncio.run(sync_to_async(connections.close_all)())
    runtime.reset()
    session_owners.clear()
    token_owners.clear()
    caches.close_all()
    site.redis.connection_pool.disconnect()


@pytest.fixture
def browser(site: Site) -> Client:
    """A browser without cookies."""
    return Client()


@pytest.fixture
def user(site: Site) -> Any:
    """A user called ann, whom the replicas know."""
    from django.contrib.auth.models import User

    user = User.objects.create_user("ann", password="secret")
    site.cluster.wait_until_replicas_caught_up()
    return user
