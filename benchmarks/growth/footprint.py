"""What a process costs the machine, as Linux tells: memory that is its own, and time on a processor."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Not the clean pages: those of a library are private only as long as nobody else has loaded it.
_PRIVATE = re.compile(r"^Private_Dirty:\s+(\d+) kB$", re.MULTILINE)


def private_kib(pid: int | None = None) -> int:
    """Return the memory that the process `pid` (default: this one) has written to and shares with nobody."""
    rollup = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text()
    return sum(int(kib) for kib in _PRIVATE.findall(rollup))


def processor_seconds(pid: int) -> float:
    """Return how long the process `pid` has been on a processor, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
