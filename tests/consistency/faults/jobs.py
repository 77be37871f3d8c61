"""What happens to the tasks that a site publishes: replicas that have nothing new yet, and workers that die."""

from __future__ import annotations

import time

from ..workers import WORKERS
from ..world import World
from .base import Fault

# As long as a worker takes to start, on a quiet machine.
PAUSE_SECONDS = 1.0


class ReplayDelayed(Fault):
    """Both replicas replay everything so much later."""

    name = "replay delayed"

    def __init__(self, world: World, delay_seconds: float) -> None:
        super().__init__(world)
        self._delay_seconds = delay_seconds

    def break_it(self) -> None:
        for replica in self.world.replicas:
            replica.delay_replay(self._delay_seconds)

    def mend(self) -> None:
        self.world.commit_something()
        for replica in self.world.replicas:
            behind = self.world.primary.write_lsn - replica.replay_lsn
            self.witness(behind > 0, f"{replica.name} was {behind} bytes behind")
        for replica in self.world.replicas:
            self.world.restore_lag(replica)


class WorkersKilled(ReplayDelayed):
    """Replay is delayed, and meanwhile one Celery worker after the other dies by SIGKILL and is started again."""

    name = "workers killed"

    def last(self, seconds: float) -> None:
        self.begin()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                self._kill_one(self.lost_messages % WORKERS)
        finally:
            self.end()

    def _kill_one(self, number: int) -> None:
        workers = self.world.workers
        assert workers is not None
        workers.kill(number)
        # A worker takes a message out of Redis first, and then notes that it has it.
        self.lost_messages += 1
        time.sleep(PAUSE_SECONDS)
        workers.start(number)
        workers.wait_until_ready()

    def mend(self) -> None:
        super().mend()
        self.witness(self.lost_messages > 0, f"workers were killed {self.lost_messages} times")
