"""How much more one call takes than another, where the noise of a machine is greater than that: measured in pairs, and counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns, thread_time_ns
from types import FrameType
from typing import NamedTuple


class Difference(NamedTuple):
    """Medians over all pairs, in microseconds for each call."""

    elapsed: float
    cpu: float
    """CPU time of this thread alone: what waits for a server takes none."""


def difference(ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int, calls: int) -> Difference:
    """Return how much longer `ours` takes. Both run in turn, `calls` at a time, and each goes first in every other pair."""
    differences = []
    for pair in range(pairs):
        if pair % 2:
            first, second = _measure(theirs, calls), _measure(ours, calls)
        else:
            second, first = _measure(ours, calls), _measure(theirs, calls)
        differences.append((second[0] - first[0], second[1] - first[1]))
    elapsed, cpu = zip(*differences, strict=True)
    return Difference(median(elapsed) / calls / 1000, median(cpu) / calls / 1000)


def _measure(call: Callable[[], object], calls: int) -> tuple[int, int]:
    cpu, started = thread_time_ns(), perf_counter_ns()
    for _ in range(calls):
        call()
    return perf_counter_ns() - started, thread_time_ns() - cpu


def count_calls(call: Callable[[], object]) -> int:
    """Return how many functions `call` calls, of Python and of C: a measure of work that no other process disturbs."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count
