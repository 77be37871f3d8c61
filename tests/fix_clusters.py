"""A second cluster beside that of the test site, in the same project: authors live there, placed by a router of the project's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from django_pglb import runtime
from django_pglb.core.topology import HostState
from django_pglb.testing import Cluster, wait_until

from .fix_site import LOG_PREFIX, NAME, Site

ARCHIVE = "archive"


class Archivist:
    """Keeps authors in the archive."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return ARCHIVE if model._meta.label == "guestbook.Author" else None

    db_for_write = db_for_read


class Clusters:
    """The site on two clusters. What `Site` calls the primary of the archive is `archive.host("default")`."""

    def __init__(self, site: Site, archive: Site) -> None:
        self.site = site
        self.archive = archive

    def wait_until_well(self) -> None:
        """Wait until the checker of this process finds every host well."""
        self.archive.cluster.wait_until_replicas_caught_up()
        self.site.wait_until_online()
        self.wait_for_archive(archive=HostState.ONLINE, archive1=HostState.ONLINE)

    def wait_until_seen(self) -> None:
        """Wait until the checker has seen every replica where its primary is now."""
        self.site.wait_until_seen()
        wanted = self.archive.cluster.primary.write_lsn
        self.archive.cluster.wait_until_replicas_caught_up()
        wait_until(
            lambda: (self.archive_hosts()["archive1"].replay_lsn or 0) >= wanted, timeout=60, what="the checker to see the archive's"
        )

    def wait_for_archive(self, **expected: HostState) -> None:
        wait_until(
            lambda: {alias: host.state for alias, host in self.archive_hosts().items() if alias in expected} == expected,
            timeout=60,
            what=f"the checker to see {expected}",
        )

    def archive_hosts(self) -> dict[str, Any]:
        return dict(runtime.get_runtime().topology(ARCHIVE).by_alias)

    def pause(self, cluster: Cluster) -> None:
        for replica in cluster.replicas:
            replica.pause_replay()


@pytest.fixture(scope="module")
def archive_cluster() -> Iterator[Cluster]:
    """A primary and a replica that log every statement, and a Redis of their own."""
    with Cluster(replicas=1, redis=True, settings={"log_statement": "all", "log_line_prefix": LOG_PREFIX}) as cluster:
        cluster.create_database(NAME)
        yield cluster


@pytest.fixture(scope="module")
def migrated_archive(migrated_site: Site, archive_cluster: Cluster, django_db_blocker: Any) -> Iterator[Site]:
    """The archive, known to Django and migrated."""
    archive = Site(archive_cluster)
    for alias, host, model in ((ARCHIVE, "default", "default"), ("archive1", "replica1", "replica1")):
        settings.DATABASES[alias] = {**settings.DATABASES[model], "PORT": archive.host(host).port}
    settings.DATABASES["archive1"]["TEST"] = {**settings.DATABASES["replica1"]["TEST"], "MIRROR": ARCHIVE}
    with django_db_blocker.unblock():
        call_command("migrate", database=ARCHIVE, verbosity=0)
        yield archive
        for alias in (ARCHIVE, "archive1"):
            connections[alias].close()
            del connections[alias], settings.DATABASES[alias]


@pytest.fixture
def clusters(site: Site, migrated_archive: Site, settings: Any) -> Iterator[Clusters]:
    """Both clusters with nothing written, nobody remembered, and every host online."""
    migrated_archive.cluster.heal()
    settings.CACHES = {
        **settings.CACHES,
        ARCHIVE: {**settings.CACHES["default"], "LOCATION": migrated_archive.cluster.redis.url},
    }
    settings.DATABASE_ROUTERS = [*settings.DATABASE_ROUTERS, "tests.fix_clusters.Archivist"]
    settings.PGLB = {
        **settings.PGLB,
        ARCHIVE: {"REPLICAS": ["archive1"], "CHECK_INTERVAL": 0.2, "CHECK_TIMEOUT": 10, "STORE": {"CACHE": ARCHIVE}},
    }
    call_command("flush", database=ARCHIVE, interactive=False, verbosity=0)
    clusters = Clusters(site, migrated_archive)
    clusters.wait_until_well()
    migrated_archive.redis.flushall()
    for primary in ("default", ARCHIVE):
        runtime.get_runtime().vouch(primary)
    yield clusters
    migrated_archive.cluster.heal()
    connections.close_all()
    migrated_archive.redis.connection_pool.disconnect()
