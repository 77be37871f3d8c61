"""A Python program in a process of its own, which ends when the test says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
END_SECONDS = 15


class Program:
    """`python -m` with these arguments, started in the repository's folder. `environment` is all that it gets; its output is kept."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - kept until the program has ended
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Ctrl-C is for the run, which ends the program when its turn comes.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_log(self) -> str:
        """Return what the program has printed so far."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode(errors="replace")

    def check_alive(self) -> None:
        """Raise `RuntimeError` if the program has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the program has ended with {self._process.returncode}; its log:\n{self.read_log()}")

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is at. What it has printed stays."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it end, and every process that it has started; after `END_SECONDS` none of them is asked any more."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            # The session is its own: its children are in it.
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
