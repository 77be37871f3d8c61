"""One request of a client, as the client saw it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Request(NamedTuple):
    """Times are seconds of the monotonic clock. `value` and `server` mean something only where it `is_answered`."""

    user: int
    is_write: bool
    started: float
    ended: float
    status: int = 0
    """0: no response."""
    value: int = -1
    """What was shown of the user's register, which only grows."""
    server: int = 0
    """The port of the server that the register was read from."""
    error: str = ""

    @property
    def is_answered(self) -> bool:
        return self.status == 200

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class Highest:
    """For each user, the request with the highest value among those that had ended by some moment."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._ends: defaultdict[int, list[float]] = defaultdict(list)
        self._highest: defaultdict[int, list[Request]] = defaultdict(list)
        for request in sorted(requests, key=lambda request: request.ended):
            highest = self._highest[request.user]
            highest.append(request if not highest or request.value > highest[-1].value else highest[-1])
            self._ends[request.user].append(request.ended)

    def before(self, request: Request) -> Request | None:
        """Return the one that `request` must not fall behind: the highest of its user that had ended when it started."""
        ended = bisect_left(self._ends[request.user], request.started)
        return self._highest[request.user][ended - 1] if ended else None

    def count_behind(self, reads: Iterable[Request]) -> int:
        """Return how many of `reads` show less than they must."""
        return sum(floor is not None and read.value < floor.value for read in reads for floor in [self.before(read)])
