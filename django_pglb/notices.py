"""What is logged once per change of state, and once a minute at most: what comes from outside may change a state with each request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .health.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

SECONDS_BETWEEN = 60.0


class Notices:
    """The latest state of each subject that was logged. Safe to use from any thread; a forked child makes its own."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._said: dict[Hashable, Hashable] = {}
        self._said_at: dict[tuple[Hashable, Hashable], float] = {}
        # Protects the step from one state to the next. Nothing is logged under it.
        self._lock = threading.Lock()

    def is_news(self, subject: Hashable, state: Hashable) -> bool:
        """Say whether it is to be logged that `subject` is in `state` now. The state that each one begins in is None.

        One that was logged within the last minute is not; whoever finds the subject in it after that is told so.
        """
        if self._said.get(subject) == state:
            return False
        with self._lock:
            moment = self._clock()
            last = self._said_at.get((subject, state))
            if self._said.get(subject) == state or (last is not None and moment < last + SECONDS_BETWEEN):
                return False
            self._said[subject], self._said_at[subject, state] = state, moment
            return True
