"""Writes numbers so that they can be read."""

from __future__ import annotations

from statistics import median


def figure(value: float) -> str:
    """Return a number with about three digits that mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"


def percent(share: float) -> str:
    """Return a share that was measured."""
    return f"{share * 100:.1f} %"


def given(share: float) -> str:
    """Return a share that was assumed."""
    return f"{share * 100:g} %"


def seconds(values: list[float]) -> str:
    """Return the median and the longest of some times."""
    return f"{median(values):.2f} s, {max(values):.2f} s"
