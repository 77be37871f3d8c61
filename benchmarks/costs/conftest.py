"""What the micro cases share: Django with the settings of one contender, and cells of the page's tables to fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django
import pytest

from .environment import is_short
from .readiness import wait_until_ready

Case = Callable[..., None]


def pytest_configure() -> None:
    django.setup()


@pytest.fixture(scope="session", autouse=True)
def ready() -> None:
    """The package knows its hosts, and its store is believed."""
    wait_until_ready()


@pytest.fixture
def fill(benchmark: Any) -> Case:
    """Measure a call as a cell of a table. With `fresh`, which returns its arguments, each call is measured apart, with new ones."""

    def measure(
        table: str, row: str, column: str, call: Callable[..., object], *, fresh: Callable[[], tuple[Any, ...]] | None = None
    ) -> None:
        benchmark.extra_info.update(table=table, row=row, column=column)
        if fresh is None:
            benchmark(call)
        else:
            benchmark.pedantic(call, setup=lambda: (fresh(), {}), rounds=50 if is_short() else 5000, warmup_rounds=20)

    return measure


@pytest.fixture
def also(benchmark: Any) -> Callable[[str, float], None]:
    """Put one more number into the row that `fill` is given."""

    def add(column: str, number: float) -> None:
        benchmark.extra_info.setdefault("also", {})[column] = number

    return add
