"""Simulates when many processes look at one server: evenly, or in step? The pauses between looks are the checker's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from django_pglb.health.worker import HURRY_JITTER, HURRY_SECONDS, jittered

BUCKET_SECONDS = 0.01


class Burst(NamedTuple):
    """How many looks begin within the worst hundredth of a second, in these seconds after the start of all processes."""

    first_second: int
    tenth_second: int
    later: int
    """From `seconds` / 2 on."""


def started_together(processes: int, interval: float, seconds: float) -> Burst:
    """Return the bursts if all processes start at the same moment, as after a release."""
    return bursts(chain.from_iterable(looks(interval, seconds, jittered) for _ in range(processes)), seconds)


def started_apart(processes: int, interval: float, seconds: float) -> Burst:
    """Return the bursts if they start at any moment of an interval."""
    starts = (random.uniform(0, interval) for _ in range(processes))
    return bursts(chain.from_iterable(looks(interval, seconds, jittered, start) for start in starts), seconds)


def without_jitter(processes: int, interval: float, seconds: float) -> Burst:
    """Return the bursts if they start at the same moment and their intervals are all alike."""
    return bursts(chain.from_iterable(looks(interval, seconds, lambda pause: pause) for _ in range(processes)), seconds)


def looks(interval: float, seconds: float, pause: Callable[[float], float], at: float = 0.0) -> Iterator[float]:
    """Return when one process looks at one server."""
    while at < seconds:
        yield at
        at += pause(interval)


def bursts(moments: Iterable[float], seconds: float) -> Burst:
    counts = Counter(int(moment / BUCKET_SECONDS) for moment in moments)
    return Burst(worst(counts, 0, 1), worst(counts, 9, 10), worst(counts, seconds / 2, seconds))


def worst(counts: Counter[int], since: float, until: float) -> int:
    return max(counts[bucket] for bucket in range(round(since / BUCKET_SECONDS), round(until / BUCKET_SECONDS)))


def after_failed_reads(processes: int) -> int:
    """Return the same worst hundredth of a second if a host fails a read of each process at once, and all look at it again."""
    counts = Counter(int(jittered(HURRY_SECONDS, HURRY_JITTER) / BUCKET_SECONDS) for _ in range(processes))
    return max(counts.values())
