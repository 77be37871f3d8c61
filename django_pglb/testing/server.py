"""A server process of the local cluster: what PostgreSQL hosts and Redis have in common."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from .account import Account
from .errors import PortTaken, ServerFailed
from .guardian import end_processes, processes_in, send
from .ports import LOOPBACK
from .waiting import wait_until

# Generous, because a test machine may be busy; a start normally takes 0.1 s.
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class _Identity(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that choose whom a program runs as."""

    user: int
    group: int
    extra_groups: list[int]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would lead PostgreSQL's programs elsewhere or change their language."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


class Server:
    """A server that listens on loopback only, in a folder and a process session of its own."""

    def __init__(self, *, name: str, home: Path, port: int, programs: Iterable[str], account: Account) -> None:
        self.name = name
        self.host = LOOPBACK
        self.port = port
        self.home = home
        self.log_path = home.with_suffix(".log")
        self._programs = frozenset(programs)
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(mode=0o700)
        account.own(home)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.host}:{self.port}, {'pid ' + str(self.pid) if self.is_running else 'down'}>"

    @property
    def pid(self) -> int:
        """The process id of the server; for PostgreSQL the postmaster's. Raises `ServerFailed` when it is down."""
        if self._process is None or not self.is_running:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server's process exists; a frozen server counts as running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server on the port it always had, and wait until it answers; harmless when it is running."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the server without waiting for it."""
        if not self.is_running:
            self._spawn(self._command())

    def wait_until_ready(self) -> None:
        """Wait until the server answers. Raises `ServerFailed` if it ends instead."""
        wait_until(self._is_ready, timeout=START_SECONDS, what=f"{self.name} to answer on port {self.port}")

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a crash would."""
        if self.is_running:
            # The parent first: it would otherwise take its children's deaths for crashes and start new ones.
            send(signal.SIGKILL, [self.pid])
        wait_until(self._none_left_after_killing, timeout=STOP_SECONDS, what=f"{self.name} to be dead")
        self._reap()

    def freeze(self) -> None:
        """Stop the server and its children in their tracks (SIGSTOP): connections stay open and nothing answers."""
        send(signal.SIGSTOP, [self.pid])
        stopped: set[int] = set()
        # A child may be born until the parent has really stopped.
        while stopped != (living := self._pids()):
            send(signal.SIGSTOP, living - stopped)
            stopped = living

    def thaw(self) -> None:
        """Let a frozen server go on. Harmless when it is not frozen."""
        send(signal.SIGCONT, self._pids())

    def read_log(self) -> str:
        """Return what the server has logged so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _pids(self) -> set[int]:
        return {process.pid for process in processes_in(self.home, self._programs)}

    def _none_left_after_killing(self) -> bool:
        living = self._pids()
        send(signal.SIGKILL, living)
        return not living

    def _spawn(self, arguments: list[str]) -> None:
        with self.log_path.open("ab") as log:
            # Statements may be logged here, those that set a password among them.
            self.log_path.chmod(0o600)
            # A session of its own keeps Ctrl-C in the owner's terminal away from the server.
            self._process = subprocess.Popen(
                arguments,
                cwd=self.home,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._identity(),
            )

    def _run_tool(self, arguments: list[str], **variables: str) -> None:
        """Run a program to its end as the server's account, with `variables` in its environment.

        Raises `ServerFailed` with what it printed.
        """
        done = subprocess.run(
            arguments,
            cwd=self.home,
            env={**clean_environment(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            **self._identity(),
        )
        if done.returncode != 0:
            raise ServerFailed(f"{Path(arguments[0]).name} for {self.name} ended with {done.returncode}: {done.stderr.strip()}")

    def _identity(self) -> _Identity:
        if os.geteuid() != 0:
            return {}
        return {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}

    def _signal_and_wait(self, signal_number: int) -> None:
        """Ask the server to end; whatever is left after `STOP_SECONDS` is killed."""
        if self._process is None:
            return
        send(signal.SIGCONT, self._pids())
        if self.is_running:
            send(signal_number, [self._process.pid])
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        end_processes(self.home, self._programs)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=STOP_SECONDS)
            self._process = None

    def _check_alive(self) -> None:
        if not self.is_running:
            ending = self.read_log()[-2000:]
            kind = PortTaken if "ddress already in use" in ending else ServerFailed
            raise kind(f"{self.name} on port {self.port} ended while starting. Its log ends with:\n{ending}")
