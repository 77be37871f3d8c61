"""Looks of a round, and how often a cluster is assessed for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from django_pglb.core.assessment import assess
from django_pglb.core.probe import Failure, NotNow, Outcome, Probe
from django_pglb.core.topology import Topology
from django_pglb.health.checker import Checker
from django_pglb.health.clock import now
from django_pglb.health.gathering import Gathering, Look
from django_pglb.testing import PLAIN_ROLE, Cluster, wait_until

from .aids import PRIMARY, checking, config_for, target_at, target_of, wait_until_online

Tell = Callable[[Sequence[Look]], None]

REPLICAS = [f"replica{number}" for number in range(50)]


def answer(at: float, lsn: int, *, in_recovery: bool = True, latency_seconds: float = 0.001) -> Probe:
    return Probe(started_at=at - 0.01, at=at, latency_seconds=latency_seconds, in_recovery=in_recovery, lsn=lsn, received_lsn=lsn)


def rounds_of_looks() -> list[list[Look]]:
    """Three rounds: all is well, then hosts lag, are slow, fail or cannot answer, and the primary with them, then all is well again."""
    at = now()
    well, ill, again = ([Look(PRIMARY, answer(at + 30 * step, 1000 + step, in_recovery=False))] for step in range(3))
    for number, alias in enumerate(REPLICAS):
        late = 0.1 + number / 1000
        outcomes: list[Outcome] = [answer(at + 30 + late, 1000), answer(at + 30 + late, 1001, latency_seconds=0.5)]
        outcomes += [Failure(at + 30 + late, "gone"), NotNow(at + 30 + late), answer(at + 30 + late, 5000)]
        well.append(Look(alias, answer(at + late, 1000)))
        ill.append(Look(alias, outcomes[number % len(outcomes)]))
        again.append(Look(alias, answer(at + 60 + late, 1002)))
    ill.insert(20, Look(PRIMARY, Failure(at + 31, "gone")))
    return [well, ill, again]


@pytest.fixture
def assessments(monkeypatch: pytest.MonkeyPatch) -> list[Topology]:
    """The topologies that checkers make from now on."""
    made: list[Topology] = []

    def note(*arguments: Any) -> Topology:
        made.append(assess(*arguments))
        return made[-1]

    monkeypatch.setattr("django_pglb.health.checker.assess", note)
    return made


def told_by_hand(monkeypatch: pytest.MonkeyPatch) -> tuple[Checker, Tell]:
    """A checker that looks at nothing, and the way to tell it what looks have brought back."""
    reports: list[Callable[[str, Sequence[Look]], None]] = []

    class Idle:
        def __init__(self, clusters: object, report: Callable[[str, Sequence[Look]], None], **_: object) -> None:
            reports.append(report)

        def start(self) -> None: ...

        def stop(self) -> None: ...

    monkeypatch.setattr("django_pglb.health.checker.Worker", Idle)
    targets = [target_at(alias, "127.0.0.1", 1) for alias in (PRIMARY, *REPLICAS)]
    checker = Checker({PRIMARY: targets}, {PRIMARY: config_for(targets)})
    checker.ensure_running()
    return checker, lambda looks: reports[0](PRIMARY, looks)


def test_looks_that_come_together_are_assessed_once_and_show_the_same(monkeypatch: pytest.MonkeyPatch, assessments: list[Topology]) -> None:
    """However many hosts there are: what they all have told makes one topology, the one that would be there after each in turn."""
    together, tell_together = told_by_hand(monkeypatch)
    one_by_one, tell_one = told_by_hand(monkeypatch)
    try:
        for looks in rounds_of_looks():
            assessments.clear()
            tell_together(looks)
            assert len(assessments) == 1
            for look in looks:
                tell_one([look])
            assert together.topology(PRIMARY) == one_by_one.topology(PRIMARY)
            assert together.topology(PRIMARY).as_of == looks[-1].outcome.at
    finally:
        together.stop()
        one_by_one.stop()


def gathered(program: Callable[[Gathering], Awaitable[None]], *, hosts: int) -> list[list[Look]]:
    """Return what is handed on while `program` runs in a loop."""
    handed_on: list[list[Look]] = []

    async def run() -> None:
        await program(Gathering(lambda looks: handed_on.append(list(looks)), hosts))

    asyncio.run(run())
    return handed_on


WELL = [Look(alias, answer(100, 1000)) for alias in REPLICAS]
NEVER = 10**9
"""Hosts that are waited for until the end of the test."""


def test_looks_that_end_one_after_the_other_are_handed_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they ended, and those of the next round after them."""
    monkeypatch.setattr("django_pglb.health.gathering.SECONDS_PER_HOST", 1.0)

    async def end_in_turn(gathering: Gathering) -> None:
        for _ in range(2):
            for look in WELL:
                gathering.add(*look)
                await asyncio.sleep(0)
            await asyncio.sleep(2)

    assert gathered(end_in_turn, hosts=1) == [WELL, WELL]


def test_failure_waits_for_nothing() -> None:
    """It is handed on before the loop waits for anything, with what has ended before, and with others that fail in the same turn."""
    failed = [Look("replica1", Failure(101, "gone")), Look("replica2", Failure(101, "gone"))]

    async def fail(gathering: Gathering) -> None:
        for look in (*WELL, *failed):
            gathering.add(*look)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert gathered(fail, hosts=NEVER) == [[*WELL, *failed]]


def test_nothing_is_handed_on_after_all_is_over() -> None:
    """Neither what waits nor what has failed just now."""

    async def leave(gathering: Gathering) -> None:
        gathering.add(*WELL[0])
        gathering.add("replica1", Failure(101, "gone"))
        gathering.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert gathered(leave, hosts=NEVER) == []


def test_big_cluster_is_assessed_a_few_times_a_round(
    healed_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, assessments: list[Topology]
) -> None:
    """Not once for each of its hosts: those that answer within the time for gathering share an assessment, which shows them all."""
    monkeypatch.setattr("django_pglb.health.gathering.SECONDS_PER_HOST", 0.05)
    standby = healed_cluster.replicas[0]
    same = {"dbname": "postgres", "user": PLAIN_ROLE}
    aliases = REPLICAS[:29]
    targets = [target_of(healed_cluster.primary), *(target_at(alias, standby.host, standby.port, **same) for alias in aliases)]
    with checking(targets, check_interval=1) as checker:
        wait_until_online(checker)
        seen = len(assessments)
        wait_until(lambda: len(assessments) >= seen + 2, timeout=60, what="two more assessments")
        # A second and a half apart, in which every host is due to be looked at.
        before, after = assessments[seen : seen + 2]
        assert len([alias for alias in aliases if after.by_alias[alias].sampled_at != before.by_alias[alias].sampled_at]) > 1
