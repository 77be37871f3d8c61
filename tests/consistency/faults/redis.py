"""What happens to the pointer store."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import redis as redis_py

from ..checker import FinalState
from ..history import Operation
from ..statistics import percentile
from .base import Fault

# How much longer the requests of one process may wait, in total, for each second that the store is frozen.
MOST_WAITING_PER_SECOND = 0.2
# The store is asked again once a second; what was owed to it is offered then.
STORE_BACK_SECONDS = 1.5
PING_SECONDS = 0.5


class RedisKilled(Fault):
    """Redis dies, and comes back empty."""

    name = "Redis killed"

    def break_it(self) -> None:
        self._run_before = self._run_id()
        self.world.cluster.redis.kill()

    def mend(self) -> None:
        self.world.cluster.redis.start()
        with self.world.redis_client() as client:
            uptime = client.info()["uptime_in_seconds"]
        self.witness(self._run_id() != self._run_before, f"another Redis runs, for {uptime} s")

    def _run_id(self) -> str:
        with self.world.redis_client() as client:
            return str(client.info()["run_id"])


class RedisFrozen(Fault):
    """Redis stops in its tracks: SIGSTOP, then SIGCONT."""

    name = "Redis frozen"

    def break_it(self) -> None:
        self.world.cluster.redis.freeze()

    def mend(self) -> None:
        server = self.world.cluster.redis
        state = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0]
        self.witness(state == "T" and not self._answers(), "Redis was stopped (T) and did not answer")
        server.thaw()

    def exempts(self, earlier: Operation, read: Operation) -> bool:
        """Only the browser that wrote carries its pointer while nobody can ask the store."""
        is_elsewhere = read.device != earlier.device or not read.is_of_browser
        return is_elsewhere and earlier.overlaps(self.started, self.ended) and read.started < self.ended + STORE_BACK_SECONDS

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        most = MOST_WAITING_PER_SECOND * (self.ended - self.started + 1)
        waits = waiting_per_worker(history, self.started, self.ended)
        for worker, waited in waits.items():
            if waited > most:
                yield f"requests to worker {worker} waited {waited:.2f} s longer than normal, not {most:.2f} s at most"
        longest = max(waits.values(), default=0.0)
        self.evidence.append(f"{longest / (self.ended - self.started):.2f} s longer per second in the slowest process")

    def _answers(self) -> bool:
        with contextlib.suppress(redis_py.RedisError), self.world.redis_client(PING_SECONDS) as client:
            return bool(client.ping())
        return False


def waiting_per_worker(history: Sequence[Operation], start: float, end: float) -> dict[str, float]:
    """Return how long the requests of each worker that were under way between two times waited beyond what is normal, in seconds.

    Normal is what 99 in 100 requests of the same kind took at other times: on a busy machine slow answers are normal, too.
    """
    normal = {
        kind: percentile([other.seconds for other in history if other.kind == kind and not other.overlaps(start, end)], 99)
        for kind in {operation.kind for operation in history}
    }
    waited: defaultdict[str, float] = defaultdict(float)
    for operation in history:
        if operation.overlaps(start, end):
            waited[operation.worker] += max(0.0, operation.seconds - normal[operation.kind])
    return dict(waited)
