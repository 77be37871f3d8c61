"""The rows of the table: which faults, for how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from django_pglb.core.job import Consistency

from .chaos import Chaos
from .checker import Problem
from .faults import (
    ConflictStorm,
    Fault,
    PrimaryKilled,
    Promotion,
    RedisFrozen,
    RedisKilled,
    ReplayDelayed,
    ReplayHeld,
    ReplicaFrozen,
    ReplicaRewound,
    ReplicasKilled,
    RepliesLost,
    SplitBrain,
    WorkersKilled,
)
from .faults.base import CHAOS_STICKY_SECONDS
from .workload import READ_KINDS
from .world import OURS, World

# Before the fault all is well, and what is normal shows.
WARM_UP_SECONDS = 2.0
# After it, whoever was hurt must be well again.
AFTERMATH_SECONDS = 3.0
RANDOM_SECONDS = 180.0
# Where what is remembered for a user gets lost, it must be needed: no replica has what was just written.
BOTH_BEHIND = (1.0, 1.5)
# Longer than the store is away: what it has forgotten is still missing on the replicas when it is back.
FAR_BEHIND = (4.0, 5.0)

# What replay is to get in the way of.
MANY_SLOW = {**READ_KINDS, "slow": 3}

MakeFault = Callable[[World, random.Random], Fault]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A site that breaks a promise, and how the checker must notice."""

    mode: str
    must_find: Problem
    settings: str = OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault under load, in force for `hold_seconds`, or else for `hold_share` of the run."""

    name: str
    title: str
    make: MakeFault
    hold_seconds: float | None = None
    hold_share: float = 0.5
    read_kinds: Mapping[str, float] = field(default_factory=lambda: READ_KINDS)
    lag_seconds: tuple[float, float] = (0.0, 0.4)
    """How far each replica is behind all the time. They differ, and one is slower than users are: else nobody would be caught."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Keys of `PGLB["default"]` that differ from their defaults."""
    task_levels: tuple[Consistency, ...] = ()
    """Each write publishes a task of one of these, for Celery workers that the run has then."""
    least_on_replicas: float = 0.0
    """Which part of the tasks must be answered by replicas."""
    is_short: bool = True
    """Whether it is among those of the short run."""
    run_seconds: float | None = None
    """How long a full run takes, where that is not what the command line says."""
    control: Control | None = None
    """What is made worse, so that users must read the past: a checker that does not notice is blind."""

    def strike(self, fault: Fault, seconds: float) -> None:
        """Let the fault happen, in about `seconds`, the quiet before and after included."""
        started = time.monotonic()
        fault.prepare()
        time.sleep(WARM_UP_SECONDS)
        fault.last(self.hold_seconds or seconds * self.hold_share)
        time.sleep(max(AFTERMATH_SECONDS, seconds - (time.monotonic() - started)))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="replica-killed",
            title="one replica killed and revived",
            make=lambda world, _: ReplicasKilled(world, world.replicas[:1]),
        ),
        Scenario(
            name="replica-frozen",
            title="one replica frozen 10 s",
            make=lambda world, _: ReplicaFrozen(world, world.replicas[0]),
            hold_seconds=10,
        ),
        Scenario(name="replay-held", title="replay paused on one, delayed on the other", make=lambda world, _: ReplayHeld(world)),
        Scenario(
            name="conflict-storm",
            title="conflict storm",
            make=lambda world, _: ConflictStorm(world),
            read_kinds=MANY_SLOW,
        ),
        Scenario(
            name="replicas-killed",
            title="all replicas killed and revived",
            make=lambda world, _: ReplicasKilled(world, world.replicas),
        ),
        Scenario(
            name="redis-killed",
            title="Redis killed and restarted empty",
            make=lambda world, _: RedisKilled(world),
            hold_seconds=1,
            lag_seconds=FAR_BEHIND,
            # Short enough to see the users return to the replicas.
            options={"MAX_LAG_SECONDS": 6, "STICKY_SECONDS": 8},
        ),
        Scenario(
            name="primary-killed",
            title="primary killed, restarted after 5 s",
            make=lambda world, _: PrimaryKilled(world),
            hold_seconds=5,
        ),
        Scenario(
            name="replica-promoted",
            title="replica promoted, old primary fenced, others re-pointed",
            make=lambda world, _: Promotion(world),
        ),
        Scenario(
            name="redis-frozen",
            title="Redis frozen 5 s",
            make=lambda world, _: RedisFrozen(world),
            hold_seconds=5,
            lag_seconds=BOTH_BEHIND,
        ),
        Scenario(
            name="replica-rewound",
            title="replica crash-restarted behind its own past",
            make=lambda world, _: ReplicaRewound(world, world.replicas[0]),
        ),
        Scenario(
            name="split-brain",
            title="replica promoted beside a living primary",
            make=lambda world, _: SplitBrain(world, world.replicas[0]),
        ),
        Scenario(
            name="replies-lost",
            title="reply to a write lost on the wire",
            make=RepliesLost,
        ),
        Scenario(
            name="task-workers-killed",
            title="tasks: replay delayed by 2 s, workers killed and restarted",
            make=lambda world, _: WorkersKilled(world, delay_seconds=2.0),
            task_levels=(Consistency.STICKY, Consistency.DELAYED),
        ),
        Scenario(
            name="tasks-delayed",
            title="tasks: `delayed`, replay 0.3 s behind",
            make=lambda world, _: ReplayDelayed(world, delay_seconds=0.3),
            lag_seconds=(0.3, 0.3),
            task_levels=(Consistency.DELAYED,),
            least_on_replicas=0.8,
            is_short=False,
        ),
        Scenario(
            name="random",
            title="random nemesis",
            make=Chaos,
            read_kinds=MANY_SLOW,
            hold_share=0.97,
            options={"MAX_LAG_SECONDS": 4, "STICKY_SECONDS": CHAOS_STICKY_SECONDS},
            run_seconds=RANDOM_SECONDS,
        ),
        Scenario(
            name="control-eventual",
            title="control: pointers switched off, replay held",
            make=lambda world, _: ReplayHeld(world),
            control=Control(mode="eventual", must_find=Problem.MISSED_OWN_WRITE),
        ),
        Scenario(
            name="control-tasks",
            title="control: tasks without pointers, replay delayed by 2 s",
            make=lambda world, _: ReplayDelayed(world, delay_seconds=2.0),
            task_levels=(Consistency.STICKY, Consistency.DELAYED),
            control=Control(mode="eventual", must_find=Problem.TASK_MISSED),
            is_short=False,
        ),
        Scenario(
            name="control-cookie-pin",
            title="control: a 15-second cookie pin instead, replay held",
            make=lambda world, _: ReplayHeld(world),
            control=Control(mode="cookie pin", must_find=Problem.MISSED_OWN_WRITE, settings="tests.consistency.settings_pin"),
        ),
        Scenario(
            name="control-read-your-writes",
            title="control: pointers after writes only, replay held",
            make=lambda world, _: ReplayHeld(world),
            control=Control(mode="read_your_writes", must_find=Problem.WENT_BACK),
        ),
    )
}
