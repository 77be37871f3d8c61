"""Celery: a broker, and worker processes for the test site."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Self

import pytest
import redis
from celery import Celery

from django_pglb.core.topology import HostState
from django_pglb.testing import Cluster, RedisServer, wait_until

from .fix_site import Site
from .served.program import Program

READY_SECONDS = 120
# How long a worker puts a delayed task back for: more than a busy machine needs to resume replay and to see it.
DELAY_SECONDS = 5
POOLS = {"prefork": 1, "threads": 4, "solo": 1}


class Worker:
    """A Celery worker with one pool, which takes tasks from the queue of that name. A context manager."""

    def __init__(self, pool: str, environment: dict[str, str], app: Celery) -> None:
        self.pool = pool
        self._environment = environment
        self._app = app
        self._program: Program | None = None

    def __enter__(self) -> Self:
        name = f"{self.pool}@127.0.0.1"
        arguments = ["-A", "tests.jobs.app", "worker", "--pool", self.pool, "-c", str(POOLS[self.pool]), "-Q", self.pool, "-n", name]
        arguments += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        self._program = Program(["celery", *arguments], self._environment)
        return self

    def __exit__(self, *exc_info: object) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.end()

    def read_log(self) -> str:
        assert self._program is not None
        return self._program.read_log()

    def run(self, task: str, *args: Any) -> Any:
        """Return what the task of this name answers here, started by nobody who has a pointer."""
        result = self._app.send_task(f"tests.jobs.tasks.{task}", args, queue=self.pool, headers={})
        return self.result_of(result)

    def result_of(self, result: Any) -> Any:
        """Return what a task answered. Raises what it raised."""
        wait_until(result.ready, timeout=READY_SECONDS, what=lambda: f"the task to end; the worker's log:\n{self.read_log()}")
        return result.get()

    def wait_until_seen(self, lsn: int) -> None:
        """Wait until this worker sees both replicas online and at `lsn`."""

        def is_seen() -> bool:
            return all(state == HostState.ONLINE and at >= lsn for state, at in self.run("look").values())

        wait_until(is_seen, timeout=60, what=lambda: f"the worker to see both replicas there; its log:\n{self.read_log()}")


@pytest.fixture(scope="session")
def broker() -> Iterator[RedisServer]:
    """A Redis for messages and results, which nobody flushes."""
    with Cluster(replicas=0, redis=True) as cluster:
        yield cluster.redis


@pytest.fixture(scope="session")
def jobs_environment(migrated_site: Site, broker: RedisServer) -> dict[str, str]:
    """The environment in which a worker finds the test site's servers."""
    return {
        **os.environ,
        "JOBS_PORTS": " ".join(str(host.port) for host in (migrated_site.cluster.primary, *migrated_site.cluster.replicas)),
        "JOBS_REDIS": migrated_site.cluster.redis.url,
        "JOBS_BROKER": broker.url,
        "JOBS_DELAY_SECONDS": str(DELAY_SECONDS),
        "DJANGO_SETTINGS_MODULE": "tests.jobs.settings",
    }


@pytest.fixture(scope="session")
def celery_app(broker: RedisServer) -> Iterator[Celery]:
    """The app in this process, which publishes to the broker."""
    from .jobs.app import app

    app.conf.update(broker_url=broker.url, result_backend=broker.url)
    app.set_current()
    app.loader.import_default_modules()
    yield app
    app.close()


@pytest.fixture(scope="module")
def workers(jobs_environment: dict[str, str], celery_app: Celery) -> Iterator[dict[str, Worker]]:
    """A worker process of each pool. No longer than the module: each looks at the hosts of the site, and other tests count that."""
    started: dict[str, Worker] = {}
    try:
        for pool in POOLS:
            started[pool] = Worker(pool, jobs_environment, celery_app)
            started[pool].__enter__()
        yield started
    finally:
        for worker in started.values():
            worker.__exit__()


@pytest.fixture
def put_back(broker: RedisServer) -> Iterator[redis.Redis]:
    """A client of the broker, where workers note what they put back."""
    with redis.Redis.from_url(broker.url, decode_responses=True) as client:
        yield client
