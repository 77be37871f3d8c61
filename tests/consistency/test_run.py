"""The runs: which there are, that their seeds replay them, and one from its first sign-in to its verdict."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from . import __main__ as command
from . import scenarios
from .__main__ import MODES, SHORT_SECONDS, parse_options, plans
from .chaos import Chaos
from .faults import HostCut
from .proxy import Mode
from .run import Plan
from .scenarios import SCENARIOS
from .world import World


def described(*arguments: str) -> list[tuple[str, str, float]]:
    """Return scenario, mode and seconds of what a command line runs."""
    return [(plan.scenario.name, plan.mode, plan.seconds) for plan in plans(parse_options(arguments), Path())]


@pytest.fixture(autouse=True)
def _control_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which runs there are does not depend on what is installed."""
    monkeypatch.setattr(command, "find_spec", lambda name: name)


def test_control_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts, not after minutes."""
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        parse_options([])
    assert "django-multidb-router" in capsys.readouterr().err


def test_everything_is_run_in_each_mode_that_is_offered() -> None:
    """20 s each, 3 minutes of chance, and the controls once."""
    found = described()
    own = [name for name, scenario in SCENARIOS.items() if scenario.control is None]
    assert [name for name, mode, _ in found if mode == MODES[0] and name in own] == own
    assert {seconds for name, _, seconds in found if name != "random"} == {20.0}
    assert {seconds for name, _, seconds in found if name == "random"} == {180.0}
    assert [name for name, *_ in found if name not in own] == [
        "control-eventual",
        "control-tasks",
        "control-cookie-pin",
        "control-read-your-writes",
    ]


def test_short_run_is_in_the_strictest_mode_only() -> None:
    """Which implies the other; and it ends in time."""
    found = described("--short")
    assert len({mode for name, mode, _ in found if SCENARIOS[name].control is None}) == 1
    assert [name for name, *_ in found] == [name for name, scenario in SCENARIOS.items() if scenario.is_short]
    assert sum(seconds for _, _, seconds in found) < 200


def test_command_line_chooses() -> None:
    """Scenario, mode and seconds; several seeds are several runs."""
    assert (
        described("--scenario", "redis-frozen", "--mode", "monotonic", "--seed", "1", "2", "--short")
        == [("redis-frozen", "monotonic", SHORT_SECONDS)] * 2
    )
    assert described("--scenario", "control-eventual", "--seconds", "9") == [("control-eventual", "eventual", 9.0)]


def test_seed_replays_the_random_nemesis() -> None:
    """The same seed chooses the same faults in the same order, another one others."""
    hosts: Any = [SimpleNamespace(name=name) for name in ("replica1", "replica2")]
    world: Any = SimpleNamespace(replicas=hosts, primary=SimpleNamespace(name="primary"))

    def choices(seed: int) -> list[str]:
        chaos = Chaos(world, random.Random(seed))
        return [fault.name for _ in range(30) for fault in chaos.choose()]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


def test_cut_from_the_primary_is_judged_by_who_was_primary_then() -> None:
    """A promotion that follows changes nothing about what it allowed."""
    primary: Any = SimpleNamespace(name="primary")
    world: Any = SimpleNamespace(primary=primary)
    cut = HostCut(world, primary, Mode.REFUSE)
    world.primary = SimpleNamespace(name="replica1")
    assert len(list(cut.allowances())) == 1
    assert list(HostCut(world, primary, Mode.REFUSE).allowances()) == []


@pytest.mark.slow
def test_run_goes_from_first_sign_in_to_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica dies under load: the load was there, the fault was seen, and no promise was broken."""
    monkeypatch.setattr(scenarios, "WARM_UP_SECONDS", 0.5)
    monkeypatch.setattr(scenarios, "AFTERMATH_SECONDS", 1.5)
    scenario = replace(SCENARIOS["replica-killed"], hold_seconds=1)
    plan = Plan(scenario=scenario, mode="read_your_writes", seconds=1, seed=1, folder=tmp_path)
    with World() as world:
        result = plan.run(world)
    assert result.violations == []
    assert result.fault.evidence == ["replica1 was started anew"]
    assert result.bound > 0
    assert {operation.kind for operation in result.history} >= {"orm", "raw", "hook", "iterator"}
    assert {operation.is_of_browser for operation in result.history} == {True, False}
