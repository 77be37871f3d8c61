"""What happens to the primary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django_pglb.testing import Replica

from ..checker import FinalState
from ..history import Operation
from ..world import World
from .base import Allowance, Fault, HostFrozen, Reads


class PrimaryKilled(Fault):
    """The primary dies by SIGKILL, and is started again. Users whose fresh write no replica has may be told so; nobody else."""

    name = "primary killed"

    def break_it(self) -> None:
        self._started_at = self.world.started_at(self.world.primary)
        self.world.kill(self.world.primary)

    def mend(self) -> None:
        self.world.revive(self.world.primary)
        self.witness(self.world.started_at(self.world.primary) != self._started_at, "the primary was started anew")

    def allowances(self) -> Iterable[Allowance]:
        yield Allowance(start=self.started, end=self.ended, reads=Reads.FRESH)


class PrimaryRestarted(PrimaryKilled):
    """The primary shuts down in order, ending its clients, and is started again."""

    name = "primary restarted"

    def break_it(self) -> None:
        primary = self.world.primary
        self._started_at = self.world.started_at(primary)
        primary.stop("fast")
        self.world.proxy(primary).refuse()


class PrimaryFrozen(HostFrozen):
    """The primary stops in its tracks: what was sent to it has an unknown outcome."""

    name = "primary frozen"

    def __init__(self, world: World) -> None:
        super().__init__(world, world.primary)

    def allowances(self) -> Iterable[Allowance]:
        yield Allowance(start=self.started, end=self.ended, reads=Reads.FRESH)


class Promotion(Fault):
    """A replica becomes the primary, the old one is fenced and stopped, and the other replica follows."""

    name = "replica promoted"
    fenced_at = promoted_at = 0.0

    def break_it(self) -> None:
        self.fenced_at, self.promoted_at = self.world.fail_over()

    def mend(self) -> None:
        primary = self.world.primary
        other = next(replica for replica in self.world.replicas if replica is not primary)
        received = other.ask("SELECT received_tli FROM pg_stat_wal_receiver")
        seconds = self.promoted_at - self.fenced_at
        what = f"{primary.name} is on timeline {primary.timeline}, {other.name} receives {received}; {seconds:.1f} s without a primary"
        self.witness(primary.timeline > 1 and received == primary.timeline, what)

    def allowances(self) -> Iterable[Allowance]:
        yield Allowance(start=self.fenced_at, end=self.promoted_at, reads=Reads.ALL)

    def excuses_loss(self, write: Operation) -> bool:
        # It may have been acknowledged after the fence went up; what began after that can only have met the new primary.
        return write.started < self.fenced_at


class SplitBrain(Fault):
    """A replica is promoted while the primary lives. The site must not write to it, and nothing else is allowed to show."""

    name = "replica promoted beside a living primary"

    def __init__(self, world: World, replica: Replica) -> None:
        super().__init__(world)
        self._replica = replica

    def break_it(self) -> None:
        self._replica.promote()
        self._written_before = self.world.written_by_clients(self._replica)

    def mend(self) -> None:
        timelines = self.world.primary.timeline, self._replica.timeline
        self.witness(timelines == (1, 2), f"two hosts take writes, on timelines {timelines[0]} and {timelines[1]}")

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        written = self.world.written_by_clients(self._replica) - self._written_before
        if written:
            yield f"the site has written {written} rows to {self._replica.name}, which was promoted beside the primary"
