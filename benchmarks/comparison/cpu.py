"""CPU time of processes, by the operating system's own account. Linux only; elsewhere it is 0."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
# Positions after the command's closing parenthesis: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
PARENT, TIMES = 1, slice(11, 15)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int) -> float:
    """Return the time that a process and its descendants have used, those included that have ended and been waited for."""
    stats = _stats()
    family = [root]
    for pid in family:
        family += [child for child, fields in stats.items() if int(fields[PARENT]) == pid]
    return sum(sum(map(int, stats[pid][TIMES])) for pid in family if pid in stats) / TICKS_PER_SECOND


def _stats() -> dict[int, list[str]]:
    """Return the fields of each process's `stat`, from the state on."""
    stats = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
    return stats
