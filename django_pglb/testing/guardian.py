"""Ends the servers of a cluster, also when the process that owns them was killed.

Run as a program (`python -I -S guardian.py FOLDER OWNER_PID PROGRAM...`) it waits until its parent, the owner, is gone,
then ends the cluster's servers and removes the folder. It must import nothing but the standard library: it has to be up,
in 20 ms, before the first server is.

A process belongs to a folder when its working directory lies inside and its program is one of those named.
PostgreSQL's processes stay in their data folder for life, so no reused process id is ever hit,
a server that has not yet written its pid file is found, and so are the children of a dead postmaster.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# How long an immediate shutdown may take before SIGKILL; it normally needs a few milliseconds.
SHUTDOWN_SECONDS = 2.0

# The owner's death is noticed at once through the pipe, unless a forked child of the owner holds it open; then by polling.
POLL_SECONDS = 0.2


class ServerProcess(NamedTuple):
    """A living process of a cluster. `is_root` tells a server from the children that it started."""

    pid: int
    is_root: bool
    program: str


def processes_in(folder: Path, programs: Iterable[str]) -> list[ServerProcess]:
    """Return the living processes of `programs` that work inside `folder`."""
    found = _from_proc(folder, frozenset(programs)) if Path("/proc/self/cwd").exists() else _from_ps(folder)
    return [ServerProcess(pid, parent not in found, program) for pid, (parent, program) in found.items()]


def _from_proc(folder: Path, programs: frozenset[str]) -> dict[int, tuple[int, str]]:
    inside = str(folder.resolve())
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - runs every few milliseconds while a shutdown is awaited
        # A process may end between any two of these reads, and a zombie or a stranger's process cannot be read.
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry)
            where = _without_deleted(os.readlink(f"/proc/{pid}/cwd"))  # noqa: PTH115
            if where != inside and not where.startswith(inside + "/"):
                continue
            program = os.path.basename(_without_deleted(os.readlink(f"/proc/{pid}/exe")))  # noqa: PTH115, PTH119
            if program in programs:
                found[pid] = (_parent(pid), program)
    return found


def _without_deleted(link: str) -> str:
    return link.removesuffix(" (deleted)")


def _parent(pid: int) -> int:
    # The command in parentheses may itself hold blanks and parentheses.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _from_ps(folder: Path) -> dict[int, tuple[int, str]]:
    """The same where there is no /proc (macOS): servers by the folder on their command line, and all that descend from them."""
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,args="], capture_output=True, text=True, check=False)  # noqa: S607
    rows = [(int(pid), int(parent), args) for pid, parent, args in (line.split(None, 2) for line in listing.stdout.splitlines())]
    inside = (f"{folder}/", f"{folder.resolve()}/")
    found = {pid: (parent, Path(args.split()[0]).name) for pid, parent, args in rows if any(path in args for path in inside)}
    found.pop(os.getpid(), None)
    # A parent can be listed after its child, hence until nothing is added.
    while more := {pid: (parent, "postgres") for pid, parent, _ in rows if parent in found and pid not in found}:
        found |= more
    return found


def send(signal_number: int, pids: Iterable[int]) -> None:
    """Send a signal to those of `pids` that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def end_processes(folder: Path, programs: Iterable[str]) -> None:
    """End every server inside `folder` and return when none is left."""
    living = processes_in(folder, programs)
    # An immediate shutdown, because a PostgreSQL that is killed leaves shared memory segments behind.
    send(signal.SIGQUIT, (process.pid for process in living if process.is_root and process.program == "postgres"))
    send(signal.SIGKILL, (process.pid for process in living if process.is_root and process.program != "postgres"))
    send(signal.SIGCONT, (process.pid for process in living))
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    while living := processes_in(folder, programs):
        if time.monotonic() > deadline:
            send(signal.SIGKILL, (process.pid for process in living))
        time.sleep(0.01)


def remove_folder(folder: Path) -> None:
    """Remove `folder`, also while a tool that was copying into it is on its last breath."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def wait_for_owner_to_end(owner_pid: int) -> None:
    """Return when standard input reaches its end or the parent is no longer `owner_pid`."""
    while os.getppid() == owner_pid:
        readable, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
        if readable:
            return


def main(folder: str, owner_pid: str, *programs: str) -> None:
    """Outlive the owner, then clean up. A signal that ends everything else must not end this."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)
    wait_for_owner_to_end(int(owner_pid))
    end_processes(Path(folder), programs)
    remove_folder(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
