"""The random nemesis: one fault after the other, sometimes two at once, all of them chosen from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf

from .checker import FinalState
from .faults import (
    Allowance,
    ConflictStorm,
    Fault,
    HostCut,
    HostSlow,
    PrimaryFrozen,
    PrimaryKilled,
    PrimaryRestarted,
    Promotion,
    RedisFrozen,
    RedisKilled,
    ReplayHeld,
    ReplicaFrozen,
    ReplicaRewound,
    ReplicasKilled,
    RepliesLost,
)
from .faults.base import CHAOS_STICKY_SECONDS
from .history import Operation
from .proxy import Mode
from .world import World

MakeFault = Callable[[], Fault]

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 8.0
# Between two faults the site may find out that all is well: what one fault allows must not be asked of another.
CALM_SECONDS = 3.0
REPLICAS_SUFFER = 0.6
BOTH_AT_ONCE = 0.4
# Afterwards there is only one replica left to hurt.
PROMOTION_AFTER = 0.7


class Chaos(Fault):
    """Many faults. Its story is the same whenever the seed and the time are."""

    name = "random"

    def __init__(self, world: World, choice: random.Random) -> None:
        super().__init__(world)
        self._choice = choice
        self.faults: list[Fault] = []
        self._calm_seconds = CALM_SECONDS

    def last(self, seconds: float) -> None:
        """Break and mend for so long."""
        self.started = time.monotonic()
        promotes_at = self.started + seconds * PROMOTION_AFTER
        while (now := time.monotonic()) < self.started + seconds - LONGEST_SECONDS:
            if now > promotes_at:
                self._have([Promotion(self.world)])
                promotes_at = inf
            else:
                self._have(self.choose())
        self.ended = time.monotonic()
        kinds = {fault.name for fault in self.faults}
        self.evidence = [f"{len(self.faults)} faults of {len(kinds)} kinds"]
        self.unseen = [f"{fault.name}: {text}" for fault in self.faults for text in fault.unseen]

    def choose(self) -> list[Fault]:
        """Return a fault, or one of replicas and one of Redis at once."""
        replicas_suffer = self._choice.random() < REPLICAS_SUFFER
        faults = [self._choice.choice(self._replica_faults() if replicas_suffer else self._other_faults())()]
        # With both the primary and the store away nobody can be answered truthfully, and no storm is seen where nobody reads.
        if replicas_suffer and not isinstance(faults[0], ConflictStorm) and self._choice.random() < BOTH_AT_ONCE:
            faults.append(self._choice.choice([RedisKilled, RedisFrozen])(self.world))
        return faults

    def _replica_faults(self) -> Sequence[MakeFault]:
        world = self.world
        replicas = [replica for replica in world.replicas if replica is not world.primary]
        replica = self._choice.choice(replicas)
        mode = self._choice.choice([Mode.REFUSE, Mode.SWALLOW])
        makers: list[MakeFault] = [
            lambda: ReplicasKilled(world, [replica]),
            lambda: ReplicasKilled(world, replicas),
            lambda: ReplicaFrozen(world, replica),
            lambda: HostCut(world, replica, mode),
            lambda: HostSlow(world, replica, 0.2),
            lambda: ReplicaRewound(world, replica),
        ]
        if len(replicas) == len(world.replicas):
            makers += [lambda: ReplayHeld(world), lambda: ConflictStorm(world)]
        return makers

    def _other_faults(self) -> Sequence[MakeFault]:
        world = self.world
        return [
            lambda: PrimaryKilled(world),
            lambda: PrimaryRestarted(world),
            lambda: PrimaryFrozen(world),
            lambda: HostCut(world, world.primary, Mode.REFUSE),
            lambda: HostCut(world, world.primary, Mode.SWALLOW),
            lambda: RepliesLost(world, self._choice),
            lambda: RedisKilled(world),
            lambda: RedisFrozen(world),
        ]

    def _have(self, faults: list[Fault]) -> None:
        seconds = self._choice.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
        self.faults += faults
        for fault in faults:
            fault.prepare()
        time.sleep(self._calm_seconds)
        begun = []
        try:
            for fault in faults:
                fault.begin()
                begun.append(fault)
            time.sleep(seconds)
        finally:
            for fault in begun:
                fault.end()
        loses_memory = any(isinstance(fault, RedisKilled) for fault in faults)
        self._calm_seconds = CALM_SECONDS + (CHAOS_STICKY_SECONDS if loses_memory else 0)
        self.story.append(f"{' and '.join(fault.name for fault in faults)} {faults[0].started:.1f}–{time.monotonic():.1f}")

    # How it is judged: as each of its faults is

    def allowances(self) -> Iterable[Allowance]:
        for fault in self.faults:
            yield from fault.allowances()

    def exempts(self, earlier: Operation, read: Operation) -> bool:
        return any(fault.exempts(earlier, read) for fault in self.faults)

    def excuses_loss(self, write: Operation) -> bool:
        return any(fault.excuses_loss(write) for fault in self.faults)

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        """Only what stands for itself: latencies and counts of a single fault are judged where it is alone."""
        return ()
