"""What was measured of one process beside a given number of replicas.

A process of its own for each number: what an earlier one has left in memory would be measured, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

PROGRAM = "benchmarks.growth.process"


class Trip(NamedTuple):
    """What one round trip costs the server."""

    commands: float
    bytes_in: float
    bytes_out: float
    processor_us: float


class StoreCost(NamedTuple):
    """What a load and a save for two identities, a session and its user, cost the server; and what it keeps."""

    load: Trip
    save: Trip
    bytes_per_pointer: float
    """Memory for what is remembered of one identity."""
    max_clients: int


class Trial(NamedTuple):
    """What was measured. Microseconds, milliseconds, KiB and seconds, as the names say."""

    replicas: int
    first_unbound_us: float
    first_bound_us: float
    later_us: float
    checker_ms_per_second: float
    probes_per_second: list[float]
    """As each server counted them: the primary's first."""
    probe_us: float
    """Time on a server's processor for one probe, at the pace of one process: with cold caches."""
    hot_probe_us: float
    """The same for one probe after the other: with warm caches."""
    checker_backend_kib: float
    """Memory of the server's process that serves a checker."""
    checker_kib: int
    """What the process grew by when its checker had started and looked for a while."""
    connections_kib: int
    """What it grew by when one thread had opened a connection to each replica."""
    left_by_look_seconds: list[float]
    left_by_read_seconds: list[float]
    default_max_connections: int
    store: StoreCost


def run_trial(replicas: int, *, is_short: bool) -> Trial:
    """Return what a new process measures beside `replicas` replicas."""
    command = [sys.executable, "-m", PROGRAM, str(replicas), *(["--short"] if is_short else [])]
    *values, store = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    load, save, *others = store
    return Trial._make([*values, StoreCost(Trip(*load), Trip(*save), *others)])
