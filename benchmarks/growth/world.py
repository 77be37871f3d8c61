"""A simulated primary and its replicas: who has which position at which moment. Times are seconds, as everywhere in the simulation."""

from __future__ import annotations

import math
import random

from django_pglb.core.lsn import LOW_BITS

# The primary does not write evenly, and what a checker interpolates between two looks is wrong by as much.
WAL_BYTES_PER_SECOND = 4_000_000
SLICE_SECONDS = 0.05
FIRST_LSN = 2**40

# How much sooner and later than the given lag a replica replays in the long run, and how much that varies within a few lags.
FASTEST, SLOWEST = 0.5, 1.5
SWING = 0.2


class Wal:
    """What the primary writes, from `start` to `end`: so much in each slice of time, exponentially distributed."""

    def __init__(self, rng: random.Random, start: float, end: float) -> None:
        self._start = start
        self._written = [FIRST_LSN]
        for _ in range(math.ceil((end - start) / SLICE_SECONDS) + 1):
            self._written.append(self._written[-1] + 1 + int(rng.expovariate(1 / (WAL_BYTES_PER_SECOND * SLICE_SECONDS))))

    def lsn(self, at: float) -> int:
        """Return the primary's position."""
        slices = max(0.0, (at - self._start) / SLICE_SECONDS)
        index = min(int(slices), len(self._written) - 2)
        before, after = self._written[index], self._written[index + 1]
        return (before + int((slices - index) * (after - before))) & ~LOW_BITS


class SimulatedReplica:
    """Replays what the primary wrote some time ago: about `lag_seconds`, each replica in its own manner."""

    def __init__(self, rng: random.Random, alias: str, wal: Wal, lag_seconds: float) -> None:
        self.alias = alias
        self._wal = wal
        self._lag_seconds = lag_seconds * rng.uniform(FASTEST, SLOWEST)
        # Slow enough that a replica never goes back.
        self._period_seconds = 10 + self._lag_seconds * rng.uniform(4, 8)
        self._phase = rng.uniform(0, 2 * math.pi)

    def lag_at(self, at: float) -> float:
        return self._lag_seconds * (1 + SWING * math.sin(2 * math.pi * at / self._period_seconds + self._phase))

    def lsn(self, at: float) -> int:
        """Return the position that it has replayed."""
        return self._wal.lsn(at - self.lag_at(at))


def quickest_lag(replicas: list[SimulatedReplica], moments: list[float]) -> float:
    """Return the smallest lag that any of `replicas` has, on average over `moments`."""
    return sum(min(replica.lag_at(at) for replica in replicas) for at in moments) / len(moments)
