"""Lists the fixture modules, and makes the run independent of who started it."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [f"tests.fix_{concern}" for concern in ("cluster", "served", "site", "clusters", "store", "jobs", "routed")]

# How long an example takes, or how long it takes to find one, says something about the machine only.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="run every Nth file with tests, from the Kth on, so that N runs share them out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (part := config.getoption("--part")) is None:
        return
    number, of = map(int, part.split("/"))
    mine = sorted({item.path for item in items})[number - 1 :: of]
    config.hook.pytest_deselected(items=[item for item in items if item.path not in mine])
    items[:] = [item for item in items if item.path in mine]
