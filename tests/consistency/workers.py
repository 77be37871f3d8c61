"""The worker processes of the site's tasks, and what the tasks have noted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from typing import Self

import redis

from django_pglb.testing import wait_until
from tests.served.site import END_SECONDS, READY_SECONDS, ROOT

from .history import TaskRun, task_run
from .wording import READY_WORKERS, TASK_RUNS

WORKERS, THREADS = 2, 4
# What a worker had that was killed is visible again after seconds, and a delayed task may wait once more; the rest is for busy machines.
DRAIN_SECONDS = 60


class Workers:
    """Some Celery workers, each a process of some threads. A context manager; entering returns when all take tasks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._redis = redis.Redis.from_url(environment["CONSISTENCY_BROKER"])

    def __enter__(self) -> Self:
        self._redis.flushdb()
        self._log = tempfile.TemporaryFile()
        try:
            for number in range(WORKERS):
                self.start(number)
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._redis.close()
        self._log.close()

    def start(self, number: int) -> None:
        """Start a worker; it takes tasks a moment later."""
        options = ["--pool", "threads", "-c", str(THREADS), "-n", f"{number}@127.0.0.1", "--loglevel", "WARNING"]
        options += ["--without-gossip", "--without-mingle"]
        self._processes[number] = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tests.consistency.jobs", "worker", *options],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self, number: int) -> None:
        """End a worker with SIGKILL, whatever it is at."""
        process = self._processes[number]
        process.kill()
        process.wait()

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
        return os.pread(self._log.fileno(), 10_000_000, 0).decode(errors="replace")

    def _is_ready(self) -> bool:
        for number, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"worker {number} has ended with {process.returncode}; its log:\n{self.read_log()}")
        ready = {int(pid) for pid in self._redis.smembers(READY_WORKERS)}
        return {process.pid for process in self._processes.values()} <= ready
