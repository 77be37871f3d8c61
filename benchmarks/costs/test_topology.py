"""What the checker does with what its looks have told: assess the cluster, and publish a new topology."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from django_pglb.core.config import ClusterConfig, ReplicaConfig
from django_pglb.core.probe import Probe
from django_pglb.health.checker import Checker
from django_pglb.health.gathering import Look
from django_pglb.health.target import Target

from .conftest import Case
from .environment import is_short
from .tables import TOPOLOGY

# As many as the checker remembers where it looks once a second.
SAMPLES = 60
START = 1000.0
SIZES = (2, 20) if is_short() else (2, 20, 200)


@pytest.mark.parametrize("replicas", SIZES)
def test_one_look(replicas: int, fill: Case) -> None:
    checker, moments = _informed(replicas), count()

    def look() -> None:
        _learn(checker, [_look("replica1", START + SAMPLES + 1 + next(moments) / 1e6)])

    fill(TOPOLOGY, f"{replicas} replicas", "one look", look)


@pytest.mark.parametrize("replicas", SIZES)
def test_round(replicas: int, fill: Case) -> None:
    checker, moments = _informed(replicas), count(1)
    fill(TOPOLOGY, f"{replicas} replicas", "a round of looks", lambda: _learn(checker, _round(replicas, START + SAMPLES + next(moments))))


def _informed(replicas: int) -> Checker:
    """Return a checker without a thread that has looked for a minute."""
    aliases = [f"replica{number}" for number in range(1, replicas + 1)]
    targets = [Target(alias="default", params={}, is_primary=True), *(Target(alias=alias, params={}) for alias in aliases)]
    config = ClusterConfig(primary="default", replicas=tuple(ReplicaConfig(alias=alias) for alias in aliases))
    checker = Checker({"default": targets}, {"default": config})
    for second in range(SAMPLES):
        _learn(checker, [_look("default", START + second)])
    _learn(checker, _round(replicas, START + SAMPLES))
    assert len(checker.topologies["default"].online) == replicas
    return checker


def _learn(checker: Checker, looks: Sequence[Look]) -> None:
    """Let the checker learn what looks that ended together have told, below the thread that looks."""
    checker._record("default", looks, looked_for=3600)


def _round(replicas: int, at: float) -> list[Look]:
    return [_look(alias, at) for alias in ("default", *(f"replica{number}" for number in range(1, replicas + 1)))]


def _look(alias: str, at: float) -> Look:
    is_primary = alias == "default"
    answer = Probe(
        started_at=at - 0.001,
        at=at,
        latency_seconds=0.001,
        in_recovery=not is_primary,
        lsn=0x3000000 + int((at - START) * 1000),
        received_lsn=None if is_primary else 0x3000000 + int((at - START) * 1000),
        timeline=1,
        is_timeline_certain=True,
        has_receiver=not is_primary,
        sees_receiver=not is_primary,
        system_identifier=7,
        server_version=170000,
        server_started_seconds=1.0,
    )
    return Look(alias, answer)
