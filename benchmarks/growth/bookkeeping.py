"""What it costs a process to know a cluster of any size, without the network: time for one look at all hosts, and memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import NamedTuple

from django_pglb.core.history import horizon_seconds
from django_pglb.core.lsn import Pointer
from django_pglb.core.policy import replica_or_primary
from django_pglb.core.probe import Probe
from django_pglb.core.routing_session import Bound, ClusterSession

from .knowledge import DEFAULTS, PRIMARY, TIMELINE, Knowledge, names, probe

HORIZONS = (1, 2, 4)
Answers = tuple[Probe, list[tuple[str, Probe]]]


class Bookkeeping(NamedTuple):
    """What it costs with so many replicas."""

    replicas: int
    look_ms: float
    """Time on the processor to take in the answers of one look at every host."""
    choice_us: float
    """Time of the rules to choose among the replicas for a reader who is bound by a pointer."""
    kept_kib: list[float]
    """Memory for what is known after 1, 2 and 4 times the time that is remembered."""


def measure_bookkeeping(replicas: int, rounds: int) -> Bookkeeping:
    """Return what it costs with so many replicas, the medians of so many rounds."""
    knowledge = Knowledge(names(replicas))
    looks = answers(replicas)
    for _ in range(looks_remembered()):
        knowledge.look(*next(looks))
    times = []
    for _ in range(rounds):
        look = next(looks)
        started = process_time_ns()
        knowledge.look(*look)
        times.append(process_time_ns() - started)
    return Bookkeeping(replicas, median(times) / 1e6, time_choice(knowledge, rounds * 20), kept_kib(replicas))


def looks_remembered() -> int:
    """Return how many looks ago the oldest was of which something is remembered."""
    return round(horizon_seconds(DEFAULTS.max_lag_seconds) / DEFAULTS.check_interval)


def answers(replicas: int) -> Iterator[Answers]:
    """Return what one look after the other brings back from a primary that writes and replicas that follow within milliseconds."""
    at, lsn = 0.0, 2**40
    while True:
        at, lsn = at + DEFAULTS.check_interval, lsn + 100_000
        yield (
            probe(lsn, at, at + 0.001, in_recovery=False),
            [(alias, probe(lsn - 8 * index, at, at + 0.002, in_recovery=True)) for index, alias in enumerate(names(replicas))],
        )


def time_choice(knowledge: Knowledge, rounds: int) -> float:
    topology = knowledge.topology
    now = topology.as_of or 0.0
    pointer = Pointer(TIMELINE, 2**40, now - 1)
    times = []
    for _ in range(rounds):
        cluster = ClusterSession(PRIMARY)
        cluster.bind(Bound(pointer))
        started = perf_counter_ns()
        replica_or_primary(cluster, topology, now, _in_flight)
        times.append(perf_counter_ns() - started)
    return median(times) / 1000


def _in_flight(alias: str) -> int:
    return 0


def kept_kib(replicas: int) -> list[float]:
    """Return how much memory the knowledge takes after some multiples of the time that is remembered."""
    looks, aliases, kept = answers(replicas), names(replicas), []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        knowledge, told = Knowledge(aliases), 0
        for horizons in HORIZONS:
            for _ in range(horizons * looks_remembered() - told):
                knowledge.look(*next(looks))
            told = horizons * looks_remembered()
            gc.collect()
            kept.append((tracemalloc.get_traced_memory()[0] - before) / 1024)
    finally:
        tracemalloc.stop()
    return kept
