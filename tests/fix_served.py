"""The served site: gunicorn in processes of its own, on a cluster of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from django_pglb.testing import Cluster

from .served.client import Answer
from .served.program import ROOT
from .served.site import GunicornSite, children_of, sees_replicas_online

DATABASE = "site"
REGISTER_READ = """
    SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
    WHERE query LIKE 'SELECT "served\\_register"%' AND query NOT LIKE '%FOR UPDATE%'
"""


class ServedSite(GunicornSite):
    """The test site under gunicorn, on `cluster`. `environment` overrides what `tests.served.settings` reads.

    `application` is a module of `tests.served`. Ready when every worker sees both replicas online.
    """

    def __init__(self, cluster: Cluster, *, application: str = "wsgi", environment: dict[str, str] | None = None, **arguments: Any) -> None:
        self.cluster = cluster
        merged = {**site_environment(cluster), **(environment or {})}
        super().__init__(f"tests.served.{application}:application", merged, **arguments)

    def is_ready(self, answer: Answer) -> bool:
        return sees_replicas_online(answer)

    def wait_until_online(self) -> None:
        """Wait until every worker answers and sees both replicas online."""
        self.wait_until_ready()

    def register_reads(self) -> dict[str, int]:
        """Return how many reads of a register each host has run, by its own statistics."""
        aliases = {"default": self.cluster.primary, "replica1": self.cluster.replicas[0], "replica2": self.cluster.replicas[1]}
        return {alias: int(host.ask(REGISTER_READ)) for alias, host in aliases.items()}


class AsgiSite(ServedSite):
    """The test site under uvicorn, with two workers."""

    def __init__(self, cluster: Cluster, *, environment: dict[str, str] | None = None) -> None:
        super().__init__(cluster, application="asgi", environment={"SERVED_POOL": "1", **(environment or {})})

    def worker_pids(self) -> set[int]:
        # The master has another child, which looks after what they share.
        return {pid for pid, command in children_of(self.master_pid).items() if "spawn_main" in command}

    def _command(self) -> list[str]:
        arguments = ["tests.served.serve_asgi", self._application, "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--workers", str(self.workers), "--lifespan", "off", "--log-level", "warning", "--no-access-log"]
        return [*arguments, "--timeout-keep-alive", "120", "--timeout-graceful-shutdown", "3"]


def site_environment(cluster: Cluster) -> dict[str, str]:
    """Return the environment in which the served site finds `cluster`."""
    replica1, replica2 = cluster.replicas
    ports = {"SERVED_PRIMARY": cluster.primary.port, "SERVED_REPLICA1": replica1.port, "SERVED_REPLICA2": replica2.port}
    return {
        **os.environ,
        **{name: str(port) for name, port in ports.items()},
        "SERVED_REDIS": cluster.redis.url,
        "DJANGO_SETTINGS_MODULE": "tests.served.settings",
    }


@pytest.fixture(scope="session")
def prepared_cluster() -> Iterator[Cluster]:
    """A cluster with the served site's tables and users."""
    with Cluster(replicas=2, redis=True) as cluster:
        cluster.create_database(DATABASE)
        subprocess.run([sys.executable, "-m", "tests.served.prepare"], cwd=ROOT, env=site_environment(cluster), check=True)
        cluster.primary.ask("CREATE EXTENSION pg_stat_statements")
        cluster.wait_until_replicas_caught_up()
        yield cluster


@pytest.fixture
def served_cluster(prepared_cluster: Cluster) -> Iterator[Cluster]:
    """The same with every server well, before the test and after it."""
    prepared_cluster.heal()
    yield prepared_cluster
    prepared_cluster.heal()


@pytest.fixture(scope="module")
def served_once(prepared_cluster: Cluster) -> Iterator[ServedSite]:
    """The site under gunicorn with two workers of four threads, one for the module."""
    with ServedSite(prepared_cluster) as site:
        yield site


@pytest.fixture
def served(served_cluster: Cluster, served_once: ServedSite) -> ServedSite:
    """The site with every server well and seen to be so by every worker."""
    served_once.wait_until_online()
    return served_once
