"""Simulates users on a big site: how many of their reads does the primary answer, and how many must it?

The rules are the package's own (`unit_rule`, `replica_or_primary`, and all that makes a topology of probes). Simulated are the servers,
the clocks and the users. The proof that goes with a read is simulated as what it is: the replica's true position at that moment.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from django_pglb.core.decision import Reason
from django_pglb.core.lsn import Pointer
from django_pglb.core.policy import Scope, replica_or_primary, unit_rule
from django_pglb.core.probe import Probe
from django_pglb.core.routing_session import Bound, ClusterSession, RoutingSession
from django_pglb.health.worker import jittered

from .knowledge import PRIMARY, TIMELINE, Knowledge, names, probe
from .world import SimulatedReplica, Wal, quickest_lag

DEVICES = 2
REQUESTS_PER_SECOND = 0.2
"""Of one device."""
REDIRECT_SECONDS = 0.05
"""So long after a write its device reads the page that the response sends it to."""
CLOCK_ERROR_SECONDS = 0.005
"""Standard deviation of the processes' clocks: pointers carry the time of the process that saved them."""
LATENCY_SECONDS = (0.0005, 0.002)
"""A probe takes between so long and so long."""


class Case(NamedTuple):
    """What is simulated."""

    lag_seconds: float
    write_share: float
    check_interval: float
    replicas: int
    processes: int
    users: int
    seconds: float


class Outcome(NamedTuple):
    """What became of the reads of one case."""

    reads: int
    on_primary: int
    due_on_primary: int
    """Those for which no replica had replayed the reader's last write at that moment: nobody who is honest has fewer."""
    discarded: int
    """Answers of replicas that were thrown away, because the proof with them fell short."""
    most_discarded: int
    """The same for the one read that had most of them, one after the other."""
    missed: int
    """Reads that were answered by a replica without the reader's last write."""
    expected_share: float
    """Of reads that are due on the primary, by the formula."""


class Request(NamedTuple):
    """One request of a user."""

    at: float
    user: int
    is_write: bool


class Process:
    """One of the site's processes: its clock, its checker, and the requests that it gets."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self._rng = rng
        self._world = world
        self._ahead_seconds = rng.gauss(0, CLOCK_ERROR_SECONDS)
        self._knowledge = Knowledge([replica.alias for replica in world.replicas])

    def clock(self, at: float) -> float:
        return at + self._ahead_seconds

    def look(self, at: float) -> None:
        """Probe every host at once."""
        answers = [(replica.alias, self._ask(replica, at, in_recovery=True)) for replica in self._world.replicas]
        self._knowledge.look(self._ask(self._world.wal, at, in_recovery=False), answers)

    def _ask(self, host: Wal | SimulatedReplica, at: float, *, in_recovery: bool) -> Probe:
        took = self._rng.uniform(*LATENCY_SECONDS)
        return probe(host.lsn(at + took / 2), self.clock(at), self.clock(at + took), in_recovery=in_recovery)

    def answer(self, request: Request, pointer: Pointer | None) -> tuple[str, int]:
        """Return who answers, and how many answers were discarded before."""
        routing, cluster = RoutingSession(safe_method=not request.is_write, is_request=True), ClusterSession(PRIMARY)
        if unit_rule(Scope(routing), routing, cluster) is not None:
            return PRIMARY, 0
        cluster.bind(Bound(pointer))
        for discarded in range(len(self._world.replicas) + 1):
            alias, _ = replica_or_primary(cluster, self._knowledge.topology, self.clock(request.at), _in_flight)
            if alias == PRIMARY or self._world.has_reached(alias, pointer, request.at):
                return alias, discarded
            cluster.exclude(alias, Reason.BEHIND)
        raise AssertionError("a replica was asked twice")


def _in_flight(alias: str) -> int:
    return 0


class World:
    """The servers."""

    def __init__(self, rng: random.Random, case: Case, warm_up: float) -> None:
        self.wal = Wal(rng, -warm_up - 3 * case.lag_seconds, case.seconds)
        self.replicas = [SimulatedReplica(rng, alias, self.wal, case.lag_seconds) for alias in names(case.replicas)]
        self._by_alias = {replica.alias: replica for replica in self.replicas}

    def has_reached(self, alias: str, pointer: Pointer | None, at: float) -> bool:
        return pointer is None or self._by_alias[alias].lsn(at) >= pointer.lsn

    def anybody_has_reached(self, pointer: Pointer | None, at: float) -> bool:
        return any(self.has_reached(replica.alias, pointer, at) for replica in self.replicas)


def simulate(case: Case, seed: int = 1) -> Outcome:
    """Return what becomes of the reads of `case`."""
    rng = random.Random(seed)
    random.seed(seed)  # the rules draw from the generator that all share
    # Until every replica has replayed a position that the processes have seen.
    warm_up = 5 + 3 * case.lag_seconds
    world = World(rng, case, warm_up)
    processes = [Process(rng, world) for _ in range(case.processes)]
    requests = sorted(requests_of(rng, case))
    looks = [(-warm_up + rng.uniform(0, case.check_interval), number) for number in range(case.processes)]
    pointers: dict[int, Pointer] = {}
    counts = {"reads": 0, "on_primary": 0, "due_on_primary": 0, "discarded": 0, "most_discarded": 0, "missed": 0}
    for request in requests:
        advance(looks, processes, request.at, case.check_interval)
        process, pointer = rng.choice(processes), pointers.get(request.user)
        alias, discarded = process.answer(request, pointer)
        if request.is_write:
            pointers[request.user] = Pointer(TIMELINE, world.wal.lsn(request.at), process.clock(request.at))
            continue
        counts["reads"] += 1
        counts["on_primary"] += alias == PRIMARY
        counts["due_on_primary"] += not world.anybody_has_reached(pointer, request.at)
        counts["discarded"] += discarded
        counts["most_discarded"] = max(counts["most_discarded"], discarded)
        counts["missed"] += alias != PRIMARY and not world.has_reached(alias, pointer, request.at)
    moments = [case.seconds * step / 100 for step in range(100)]
    return Outcome(**counts, expected_share=expected_share(case, quickest_lag(world.replicas, moments)))


def advance(looks: list[tuple[float, int]], processes: list[Process], until: float, interval: float) -> None:
    """Let the processes look at the hosts whenever they are due before `until`."""
    heapq.heapify(looks)
    while looks[0][0] <= until:
        at, number = looks[0]
        processes[number].look(at)
        heapq.heapreplace(looks, (at + jittered(interval), number))


def requests_of(rng: random.Random, case: Case) -> Iterator[Request]:
    """Return the requests of all users, in no order: by chance, and a page that is read after each write."""
    for user in range(case.users):
        at = rng.expovariate(DEVICES * REQUESTS_PER_SECOND)
        while at < case.seconds:
            is_write = rng.random() < case.write_share
            yield Request(at, user, is_write)
            if is_write and at + REDIRECT_SECONDS < case.seconds:
                yield Request(at + REDIRECT_SECONDS, user, is_write=False)
            at += rng.expovariate(DEVICES * REQUESTS_PER_SECOND)


def expected_share(case: Case, lag_seconds: float) -> float:
    """Return the share of reads that are due on the primary: whose user has written within the lag of the quickest replica.

    Writes of a user come by chance, w in a second. So of the reads that come by chance 1 - exp(-w lag) are; and of those that follow
    a write all, if the lag is longer than they take.
    """
    requests = DEVICES * REQUESTS_PER_SECOND
    writes = requests * case.write_share
    by_chance, following = requests - writes, writes
    due = by_chance * -math.expm1(-writes * lag_seconds) + following * (lag_seconds > REDIRECT_SECONDS)
    return due / (by_chance + following)
