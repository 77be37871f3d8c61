"""The servers that the site runs on, and the site under gunicorn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

import redis

from django_pglb.testing import Cluster
from tests.served.client import Answer
from tests.served.program import ROOT
from tests.served.site import GunicornSite

DATABASE = ROLE = "site"
WORKERS, THREADS = 2, 4


class Servers:
    """A primary, replicas and Redis with the site's tables and users on them. A context manager."""

    def __init__(self, replicas: int = 2) -> None:
        self.cluster = Cluster(replicas=replicas, redis=True)
        self.sessions: list[list[str]] = []
        """The session keys of each user's devices."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.cluster)
            self.cluster.create_role(ROLE, monitor=True)
            self.cluster.create_database(DATABASE, owner=ROLE)
            prepare = [sys.executable, "-m", "benchmarks.site.prepare"]
            environment = self.environment("plain Django")
            told = subprocess.run(prepare, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
            self.sessions = json.loads(told.stdout)
            self.cluster.primary.ask("VACUUM ANALYZE")
            self.cluster.wait_until_replicas_caught_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def environment(self, contender: str, **more: str) -> dict[str, str]:
        """Return the environment in which the site finds these servers, balanced by `contender`."""
        ours = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
            "BENCHMARK_CONTENDER": contender,
            "BENCHMARK_PORTS": ",".join(str(host.port) for host in self.cluster.hosts),
            "BENCHMARK_REDIS": self.cluster.redis.url,
        }
        return {**os.environ, **ours, **more}

    def forget(self) -> None:
        """Empty Redis of what was remembered for users; what is kept for ever, as what the store knows of itself, stays."""
        with redis.Redis.from_url(self.cluster.redis.url) as client:
            for key in client.scan_iter():
                if client.pttl(key) >= 0:
                    client.delete(key)

    def site(self, contender: str, **options: Any) -> Site:
        """Return the site balanced by `contender`; `options` are put into its `PGLB`."""
        more = {"BENCHMARK_PGLB": json.dumps(options)} if options else {}
        return Site(self.environment(contender, **more))


class Site(GunicornSite):
    """The site under gunicorn: ready when every worker sees every host that it knows online."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__("benchmarks.site.wsgi:application", environment, workers=WORKERS, threads=THREADS)

    def is_ready(self, answer: Answer) -> bool:
        return answer.status == 200 and set(answer.body.values()) <= {"online"}
