"""The served site: gunicorn in processes of its own, on a cluster of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from django_pglb.testing import Cluster, wait_until
from django_pglb.testing.ports import free_port

from .served.client import Answer, Wire
from .served.load import CLIENTS

DATABASE = "site"
ROOT = Path(__file__).parents[1]
READY_SECONDS = 120
END_SECONDS = 10
REGISTER_READ = """
    SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
    WHERE query LIKE 'SELECT "served\\_register"%' AND query NOT LIKE '%FOR UPDATE%'
"""


class ServedSite:
    """The site under gunicorn: `workers` processes of `threads` threads. A context manager.

    `environment` overrides what `tests.served.settings` reads; `application` is a module of `tests.served`.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        workers: int = 2,
        threads: int = 4,
        preload: bool = False,
        application: str = "wsgi",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.port = free_port()
        self.workers = workers
        self._threads = threads
        self._preload = preload
        self._application = application
        self._environment = {**site_environment(cluster), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *self._arguments(), f"tests.served.{self._application}:application"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self.wait_until_online()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        process = self._process
        if process is None:
            return
        children = self.worker_pids()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process = None
        self._log.close()

    @property
    def master_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def worker_pids(self) -> set[int]:
        """Return the pids of gunicorn's living workers, as the operating system knows them."""
        return _children(self.master_pid)

    def read_log(self) -> str:
        """Return what gunicorn and the site have logged so far."""
        return os.pread(self._log.fileno(), 1_000_000, 0).decode(errors="replace")

    def wait_until_online(self) -> None:
        """Wait until every worker answers and sees both replicas online."""
        wait_until(
            self._is_online, timeout=READY_SECONDS, what=lambda: f"all workers to see both replicas online; the log:\n{self.read_log()}"
        )

    def ask_all_workers(self, path: str = "/topology/") -> dict[int, Answer]:
        """Return the latest answer of each worker that answered one of a few requests at once."""
        with ThreadPoolExecutor(2 * CLIENTS) as pool:
            answers = list(pool.map(self._ask, [path] * 2 * CLIENTS))
        return {int(answer.worker): answer for answer in answers if answer is not None and answer.worker}

    def register_reads(self) -> dict[str, int]:
        """Return how many reads of a register each host has run, by its own statistics."""
        aliases = {"default": self.cluster.primary, "replica1": self.cluster.replicas[0], "replica2": self.cluster.replicas[1]}
        return {alias: int(host.ask(REGISTER_READ)) for alias, host in aliases.items()}

    def _arguments(self) -> list[str]:
        arguments = ["--config", "python:tests.served.gunicorn_conf", "--bind", f"127.0.0.1:{self.port}", "--workers", str(self.workers)]
        arguments += ["--worker-class", "gthread", "--threads", str(self._threads)] if self._threads > 1 else []
        return arguments + (["--preload"] if self._preload else [])

    def _is_online(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"gunicorn has ended with {self._process.returncode}; its log:\n{self.read_log()}")
        answers = self.ask_all_workers()
        seen = {pid for pid, answer in answers.items() if {answer.body["replica1"], answer.body["replica2"]} == {"online"}}
        return len(seen) == self.workers and seen == self.worker_pids()

    def _ask(self, path: str) -> Answer | None:
        try:
            with Wire(self.port) as wire:
                return wire.request("GET", path)
        except OSError:
            return None


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


def _children(parent: int) -> set[int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listing.splitlines())
    return {int(pid) for pid, ppid in rows if int(ppid) == parent}


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
