"""A site under gunicorn, in processes of its own that end with the run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from django_pglb.testing import wait_until
from django_pglb.testing.ports import free_port

from .client import Answer, Wire
from .program import Program

READY_SECONDS = 120
# Several at once for each worker, so that each gets one.
QUESTIONS = 16


class GunicornSite:
    """`application` (`module:name`) under gunicorn: `workers` processes of `threads` threads. A context manager.

    `environment` is all that the processes get. Starting returns when `is_ready` says yes.
    """

    def __init__(
        self, application: str, environment: Mapping[str, str], *, workers: int = 2, threads: int = 4, preload: bool = False
    ) -> None:
        self.port = free_port()
        self.workers = workers
        self.threads = threads
        self._application = application
        self._environment = environment
        self._preload = preload
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self._program = Program(self._command(), self._environment)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.end()

    @property
    def master_pid(self) -> int:
        assert self._program is not None
        return self._program.pid

    def worker_pids(self) -> set[int]:
        """Return the pids of gunicorn's living workers, as the operating system knows them."""
        return set(children_of(self.master_pid))

    def read_log(self) -> str:
        """Return what gunicorn and the site have logged so far."""
        assert self._program is not None
        return self._program.read_log()

    def is_ready(self, answer: Answer) -> bool:
        """Say whether a worker that gave this answer to `/topology/` is ready for the load."""
        return answer.status == 200

    def wait_until_ready(self) -> None:
        """Wait until every worker is ready."""
        self.wait_until_all(self.is_ready, "be ready")

    def wait_until_all(self, accepts: Callable[[Answer], bool], what: str) -> None:
        """Wait until `accepts` says yes to an answer of every worker to `/topology/`."""
        wait_until(
            lambda: self._is_accepted_by_all(accepts),
            timeout=READY_SECONDS,
            what=lambda: f"all workers to {what}; the log:\n{self.read_log()}",
        )

    def ask_all_workers(self, path: str = "/topology/") -> dict[int, Answer]:
        """Return the latest answer of each worker that answered one of a few requests at once."""
        with ThreadPoolExecutor(QUESTIONS) as pool:
            answers = list(pool.map(self._ask, [path] * QUESTIONS))
        return {int(answer.worker): answer for answer in answers if answer is not None and answer.worker}

    def _is_accepted_by_all(self, accepts: Callable[[Answer], bool]) -> bool:
        assert self._program is not None
        self._program.check_alive()
        accepted = {pid for pid, answer in self.ask_all_workers().items() if accepts(answer)}
        return len(accepted) == self.workers and accepted == self.worker_pids()

    def _command(self) -> list[str]:
        arguments = [
            "gunicorn",
            self._application,
            "--config",
            "python:tests.served.gunicorn_conf",
            "--bind",
            f"127.0.0.1:{self.port}",
            "--workers",
            str(self.workers),
        ]
        arguments += ["--worker-class", "gthread", "--threads", str(self.threads)] if self.threads > 1 else []
        return arguments + (["--preload"] if self._preload else [])

    def _ask(self, path: str) -> Answer | None:
        try:
            with Wire(self.port) as wire:
                return wire.request("GET", path)
        except OSError:
            return None


def sees_replicas_online(answer: Answer) -> bool:
    """Say whether this answer to `/topology/` has both replicas online."""
    return answer.status == 200 and {answer.body["replica1"], answer.body["replica2"]} == {"online"}


def children_of(parent: int) -> dict[int, str]:
    """Return the pids of a process's living children, and what each runs, as the operating system knows them."""
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in listing.splitlines())
    return {int(pid): " ".join(command) for pid, ppid, *command in rows if int(ppid) == parent}
