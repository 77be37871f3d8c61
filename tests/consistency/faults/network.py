"""What happens between the site and a host."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence

from django_pglb.testing import PostgresHost

from ..checker import FinalState
from ..history import Operation
from ..proxy import LostReply, Mode
from ..world import World
from .base import Allowance, Fault, Reads

# The design's STICKY_SECONDS: for so long an unknown outcome keeps its user on the primary.
STICKY_SECONDS = 30.0


class HostCut(Fault):
    """The network to a host refuses, or swallows everything."""

    name = "network cut"

    def __init__(self, world: World, host: PostgresHost, mode: Mode) -> None:
        super().__init__(world)
        self._host = host
        self._mode = mode
        # Not asked later: somebody else may be the primary by then.
        self._is_primary = host is world.primary

    def break_it(self) -> None:
        proxy = self.world.proxy(self._host)
        self._before = proxy.resets, proxy.swallowed_bytes
        if self._mode is Mode.REFUSE:
            proxy.refuse()
        else:
            proxy.swallow()

    def mend(self) -> None:
        proxy = self.world.proxy(self._host)
        resets, swallowed = proxy.resets - self._before[0], proxy.swallowed_bytes - self._before[1]
        self.witness(
            resets + swallowed > 0, f"the way to {self._host.name} ({self._mode}) ended {resets} connections, lost {swallowed} bytes"
        )
        proxy.pass_on()

    def allowances(self) -> Iterable[Allowance]:
        if self._is_primary:
            yield Allowance(start=self.started, end=self.ended, reads=Reads.FRESH)


class HostSlow(Fault):
    """Each message to and from a host takes longer."""

    name = "network slow"

    def __init__(self, world: World, host: PostgresHost, seconds: float) -> None:
        super().__init__(world)
        self._host = host
        self._seconds = seconds

    def break_it(self) -> None:
        proxy = self.world.proxy(self._host)
        self._delayed_before = proxy.delayed_messages
        proxy.slow(up=self._seconds, down=self._seconds)

    def mend(self) -> None:
        proxy = self.world.proxy(self._host)
        proxy.slow()
        delayed = proxy.delayed_messages - self._delayed_before
        self.witness(delayed > 0, f"{delayed} messages to and from {self._host.name} took {self._seconds:g} s longer")


class RepliesLost(Fault):
    """The primary does what it was sent, and its reply never arrives: again and again, for each kind of write."""

    name = "replies lost"
    PAUSE_SECONDS = 0.4
    LEAST = 5
    # After these nobody knows whether the write is there: a commit, and a statement that is its own transaction.
    UNKNOWN_OUTCOME = (b"COMMIT", b"WITH raised AS")
    # After this one everybody does: its transaction was never committed.
    KNOWN_OUTCOME = (b'INSERT INTO "consistency_token"',)

    def __init__(self, world: World, choice: random.Random) -> None:
        super().__init__(world)
        # One of its own: two threads that share one would not choose the same twice.
        self._choice = random.Random(choice.random())
        self._stopping = threading.Event()

    @property
    def lost(self) -> Sequence[LostReply]:
        """The replies that were lost meanwhile."""
        return self._proxy.lost_replies[self._lost_before :]

    def break_it(self) -> None:
        self._proxy = self.world.proxy(self.world.primary)
        self._lost_before = len(self._proxy.lost_replies)
        self._thread = threading.Thread(target=self._lose, name="replies lost")
        self._thread.start()

    def mend(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._proxy.lose_after = None

    def allowances(self) -> Iterable[Allowance]:
        """Allow what was under way when a reply was lost: whoever comes next has a connection of their own."""
        return (Allowance(start=lost.at, end=lost.at, settling_seconds=0) for lost in self.lost)

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        failed = [operation for operation in history if operation.is_write and operation.has_failed]
        there = [write for write in failed if any(token in final.tokens for token in write.tokens)]
        self.witness(len(self.lost) >= self.LEAST, f"{len(self.lost)} replies were lost")
        self.witness(bool(there), f"{len(there)} of {len(failed)} failed writes are there")
        if len(failed) < len(self.lost):
            yield f"{len(self.lost)} replies to writes were lost, but only {len(failed)} writes were answered with an error"
        unknown = [lost.at for lost in self.lost if lost.message in self.UNKNOWN_OUTCOME]
        for write in failed:
            if any(write.started < at < write.ended for at in unknown):
                yield from self._read_elsewhere(write, history)

    def _read_elsewhere(self, write: Operation, history: Sequence[Operation]) -> Iterable[str]:
        """Find the user's next read that another host than the primary answered."""
        for read in history:
            is_next = read.user == write.user and write.ended < read.started < write.ended + STICKY_SECONDS
            if is_next and not read.is_write and read.is_acknowledged and read.hosts[-1:] != ("default",):
                yield f"after a write of unknown outcome its user was not answered by the primary:\n    {write}\n    {read}"
                return

    def _lose(self) -> None:
        while not self._stopping.wait(self.PAUSE_SECONDS):
            if self._proxy.lose_after is None:
                self._proxy.lose_reply_to(self._choice.choice([*self.UNKNOWN_OUTCOME, *self.KNOWN_OUTCOME]))
