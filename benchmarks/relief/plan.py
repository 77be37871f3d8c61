"""How much is measured."""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """Times are in seconds."""

    calibration_seconds: float
    """Of each site under all the load that it carries."""
    quiet_seconds: float
    """Before the measured load: a server's idle backends tell of their last transactions when ten seconds have passed."""
    seconds: float
    """Of the measured load on each site."""
    settling_seconds: float
    """How much of these, at the beginning, is shown in the plot but not counted in the table: connections are opened, caches are cold."""


FULL = Plan(calibration_seconds=3, quiet_seconds=11, seconds=30, settling_seconds=4)
SHORT = Plan(calibration_seconds=0.5, quiet_seconds=0, seconds=3, settling_seconds=1)
