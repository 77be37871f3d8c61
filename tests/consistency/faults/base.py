"""What all faults have in common, and what a fault allows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from django_pglb.testing import PostgresHost

from ..checker import FinalState
from ..history import Operation
from ..world import World

# Each thread of the site finds out by its next write that its connection to the primary has died; its outcome is then unknown.
SETTLING_SECONDS = 10.0
# A write that was acknowledged so shortly before its primary died may not have reached a replica yet; neither may what a page saw there.
FRESH_SECONDS = 1.0
# The site's STICKY_SECONDS under the random nemesis, where one fault may follow another. For so long a write whose outcome is unknown keeps
# its user on the primary, and nobody believes a store that has lost its memory.
CHAOS_STICKY_SECONDS = 6.0


class Reads(StrEnum):
    """Which reads may fail."""

    NONE = "none"
    FRESH = "of users whom something fresh binds"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Which errors are no violation while a fault is in force, from `start` to `end`; writes a while longer."""

    start: float
    end: float
    reads: Reads = Reads.NONE
    settling_seconds: float = SETTLING_SECONDS

    def allows(self, operation: Operation, binding: Sequence[Operation]) -> bool:
        """Say whether `operation` may have failed; `binding` are those of the same user that bind them: writes, and what they saw."""
        if operation.is_write:
            return operation.overlaps(self.start, self.end + self.settling_seconds)
        if not operation.overlaps(self.start, self.end) or self.reads is Reads.NONE:
            return False
        return self.reads is Reads.ALL or any(self._is_fresh(other, operation) for other in binding)

    def _is_fresh(self, other: Operation, read: Operation) -> bool:
        seconds = CHAOS_STICKY_SECONDS + FRESH_SECONDS if other.is_write and other.has_failed else FRESH_SECONDS
        return other.ended > self.start - seconds and other.started < read.ended


class Fault:
    """Breaks something at `begin()` and mends it at `end()`.

    What the servers' own counters show of it goes to `evidence`, and what they do not, to `unseen`.
    """

    name = ""
    lost_messages = 0
    """How many messages of tasks the broker may have lost because of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.evidence: list[str] = []
        self.unseen: list[str] = []
        self.story: list[str] = []
        """What happened, where that is more than its name says."""
        self.started = self.ended = inf

    def prepare(self) -> None:
        """Do what must be done some seconds before it begins: nothing, unless a fault says otherwise."""

    def last(self, seconds: float) -> None:
        """Be in force for so long; it is mended whatever happens meanwhile."""
        self.begin()
        try:
            time.sleep(seconds)
        finally:
            self.end()

    def begin(self) -> None:
        """Break it."""
        self.started = time.monotonic()
        self.break_it()

    def end(self) -> None:
        """Mend it, and look at what the servers say of it."""
        self.mend()
        self.ended = time.monotonic()

    def break_it(self) -> None:
        raise NotImplementedError

    def mend(self) -> None:
        raise NotImplementedError

    def witness(self, is_seen: bool, what: str) -> None:
        """Note what the servers' own counters show of the fault, or do not."""
        (self.evidence if is_seen else self.unseen).append(what)

    # How it is judged

    def allowances(self) -> Iterable[Allowance]:
        """Return which errors it allows: none, unless a fault says otherwise."""
        return ()

    def exempts(self, earlier: Operation, read: Operation) -> bool:
        """Say whether `read` need not show what an earlier operation wrote or saw: it must, unless a fault says otherwise."""
        return False

    def excuses_loss(self, write: Operation) -> bool:
        """Say whether PostgreSQL itself may have lost `write`: no, unless a fault says otherwise."""
        return False

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        """Return what else is wrong under this very fault."""
        return ()


class HostFrozen(Fault):
    """A host stops in its tracks: SIGSTOP, then SIGCONT."""

    name = "host frozen"
    HEARTBEAT_SECONDS = 1.0

    def __init__(self, world: World, host: PostgresHost) -> None:
        super().__init__(world)
        self._host = host

    def break_it(self) -> None:
        self._host.freeze()

    def mend(self) -> None:
        """Look at what those who stream to it or from it last heard."""
        seconds = time.monotonic() - self.started
        silence = self.world.silence_of(self._host)
        self.witness(silence > seconds - self.HEARTBEAT_SECONDS, f"nobody had heard from {self._host.name} for {silence:.1f} s")
        self._host.thaw()
