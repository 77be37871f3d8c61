"""System V shared memory that a killed PostgreSQL leaves behind: a few bytes, but a machine has only 4096 segments."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# https://man7.org/linux/man-pages/man5/proc_sysvipc.5.html
SEGMENTS = Path("/proc/sysvipc/shm")


def segments_of(creator_pid: int) -> list[str]:
    """Return the ids of the segments that a process made and nobody is attached to. Empty where the system does not tell."""
    try:
        header, *lines = SEGMENTS.read_text().splitlines()
    except OSError:
        return []
    rows = (dict(zip(header.split(), line.split(), strict=False)) for line in lines)
    return [row["shmid"] for row in rows if row["cpid"] == str(creator_pid) and row["nattch"] == "0"]


def remove_shared_memory(creator_pid: int) -> None:
    """Remove the unused segments that a process, which must be dead, has made."""
    ipcrm = shutil.which("ipcrm")
    for segment in segments_of(creator_pid) if ipcrm else ():
        subprocess.run([str(ipcrm), "-m", segment], check=False, capture_output=True)
