"""The clock that ages everything: it counts the time that the machine was suspended, and nobody can set it."""

from __future__ import annotations

import sys
import time

if sys.platform == "linux":
    # CLOCK_MONOTONIC stands still while the machine sleeps, and a replica's lag does not.
    def now() -> float:
        """Return seconds since some moment in the past."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def now() -> float:
        """Return seconds since some moment in the past."""
        return time.monotonic()
