"""Looks that end at about the same moment, handed on together: to assess a cluster costs as much after one look as after them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from ..core.probe import Failure, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What has ended waits this long, times the cluster's hosts, for what ends next. To assess a cluster takes less than a fifth of that,
# so that most of the thread's time is left for the looks, however many there are and however far apart they end.
SECONDS_PER_HOST = 0.0002


class Look(NamedTuple):
    """What a look at the host `alias` has brought back."""

    alias: str
    outcome: Outcome


class Gathering:
    """Gathers what looks at the `hosts` hosts of a cluster bring back, and calls `hand_on` with it. Belongs to one event loop.

    A failure waits for nothing but what has ended in the same turn of the loop: a hundred hosts that are cut off fail together.
    """

    def __init__(self, hand_on: Callable[[Sequence[Look]], None], hosts: int) -> None:
        self._hand_on = hand_on
        self._patience_seconds = SECONDS_PER_HOST * hosts
        self._looks: list[Look] = []
        self._due: asyncio.TimerHandle | None = None

    def add(self, alias: str, outcome: Outcome) -> None:
        """Hand this on soon, in the order in which it came."""
        self._looks.append(Look(alias, outcome))
        loop = asyncio.get_running_loop()
        due_at = loop.time() + (0 if isinstance(outcome, Failure) else self._patience_seconds)
        if self._due is None or due_at < self._due.when():
            self._cancel()
            self._due = loop.call_at(due_at, self._end)

    def leave(self) -> None:
        """Hand on nothing more."""
        self._cancel()
        self._looks.clear()

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = None

    def _end(self) -> None:
        looks, self._looks, self._due = self._looks, [], None
        self._hand_on(looks)
