"""The worker processes of the site's tasks, and what the tasks have noted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from typing import Self

import redis

from django_pglb.testing import wait_until
from tests.served.program import Program
from tests.served.site import READY_SECONDS

from .history import TaskRun, task_run
from .wording import READY_WORKERS, TASK_RUNS

WORKERS, THREADS = 2, 4
# What a worker had that was killed is visible again after seconds, and a delayed task may wait once more; the rest is for busy machines.
DRAIN_SECONDS = 60


class Workers:
    """Some Celery workers, each a process of some threads. A context manager; entering returns when all take tasks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._programs: dict[int, Program] = {}
        self._redis = redis.Redis.from_url(environment["CONSISTENCY_BROKER"])

    def __enter__(self) -> Self:
        self._redis.flushdb()
        try:
            for number in range(WORKERS):
                self.start(number)
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for program in self._programs.values():
            program.end()
        self._programs.clear()
        self._redis.close()

    def start(self, number: int) -> None:
        """Start a worker; it takes tasks a moment later."""
        options = ["--pool", "threads", "-c", str(THREADS), "-n", f"{number}@127.0.0.1", "--loglevel", "WARNING"]
        options += ["--without-gossip", "--without-mingle"]
        self._programs[number] = Program(["celery", "-A", "tests.consistency.jobs", "worker", *options], self._environment)

    def kill(self, number: int) -> None:
        """End a worker with SIGKILL, whatever it is at."""
        program = self._programs.pop(number)
        program.kill()
        program.end()

    def wait_until_ready(self) -> None:
        """Wait until every worker takes tasks."""
        wait_until(self._is_ready, timeout=READY_SECONDS, what=lambda: f"all Celery workers to be ready; their log:\n{self.read_log()}")

    def drain(self, published: Collection[str]) -> list[TaskRun]:
        """Wait until a task has run for each of these tokens, or will probably never. Returns all runs there were."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: set(published) <= {run.token for run in self.runs()}, timeout=DRAIN_SECONDS, what="all tasks to run")
        return self.runs()

    def runs(self) -> list[TaskRun]:
        return [task_run(json.loads(line)) for line in self._redis.lrange(TASK_RUNS, 0, -1)]

    def read_log(self) -> str:
        """Return what the workers have logged so far."""
        return "\n".join(program.read_log() for program in self._programs.values())

    def _is_ready(self) -> bool:
        for program in self._programs.values():
            program.check_alive()
        ready = {int(pid) for pid in self._redis.smembers(READY_WORKERS)}
        return {program.pid for program in self._programs.values()} <= ready
