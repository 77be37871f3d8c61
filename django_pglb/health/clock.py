"""The clock that ages everything: it counts the time that the machine was suspended, and nobody can set it."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# CLOCK_MONOTONIC stands still while the machine sleeps, and a replica's lag does not. Not a function of ours: every read asks.
now: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
"""Return seconds since some moment in the past."""
