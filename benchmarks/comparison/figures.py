"""What a run comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .request import Highest, Request


class Window(NamedTuple):
    """A span of the monotonic clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def started_in(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that started in it."""
        return [request for request in requests if self.begin <= request.started < self.end]

    def ended_in(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that ended in it."""
        return [request for request in requests if self.begin <= request.ended < self.end]

    def rate(self, requests: Sequence[Request]) -> float:
        """Return how many requests were answered well in it, a second."""
        return sum(request.is_answered for request in self.ended_in(requests)) / self.seconds


class Truth(NamedTuple):
    """What was read, and what should not have been."""

    reads: int
    missed: int
    """Reads that did not show a write of the same user, on whatever device, that was acknowledged before they started."""
    back: int
    """Reads that showed less than another read of the same user, on whatever device, that had ended before they started."""
    errors: Counter[str]

    @property
    def missed_share(self) -> float:
        return self.missed / max(1, self.reads)


def judge(window: Window, history: Sequence[Request]) -> Truth:
    """Judge what started in the window by all that happened before."""
    seen = window.started_in(history)
    reads = good_reads(seen)
    answered = [request for request in history if request.is_answered]
    return Truth(
        reads=len(reads),
        missed=Highest(request for request in answered if request.is_write).count_behind(reads),
        back=Highest(request for request in answered if not request.is_write).count_behind(reads),
        errors=Counter(request.error for request in seen if request.error),
    )


def good_reads(requests: Sequence[Request]) -> list[Request]:
    return [request for request in requests if request.is_answered and not request.is_write]


def percentile(requests: Sequence[Request], share: float) -> float:
    """Return how long, in milliseconds, the given share of the requests took at most, failed ones included."""
    durations = sorted(request.seconds for request in requests)
    return durations[min(len(durations) - 1, int(share * len(durations)))] * 1000 if durations else 0.0
