"""How many reads replicas could have answered truthfully, from what the clients saw and where the servers were.

A write is taken to end at the first position of the primary that was asked for after its answer, a replica to be where it was last seen:
each is up to a sample late, so the true shares are a little higher. Who has written nothing in this run may read from any replica.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from .request import Highest, Request


class Positions(Protocol):
    """Where the servers were."""

    def written(self, moment: float) -> float:
        """Return a position that is not before anything committed at `moment`."""

    def replayed(self, moment: float) -> float:
        """Return a position that some replica certainly had at `moment`."""


def honest_share(reads: Sequence[Request], history: Sequence[Request], positions: Positions) -> float:
    """Return the share of `reads` for which some replica had, when they started, the last acknowledged write of their user."""
    writes = Highest(request for request in history if request.is_answered and request.is_write)
    last_writes = ((read, writes.before(read)) for read in reads)
    possible = sum(write is None or positions.replayed(read.started) >= positions.written(write.ended) for read, write in last_writes)
    return possible / max(1, len(reads))


def monotonic_share(reads: Sequence[Request], history: Sequence[Request], positions: Positions) -> float:
    """Return the share that is left if nobody may go back in time either, with replicas used whenever that is possible.

    Somebody who was answered by the primary has seen the present, and a replica must have got there before it may answer again.
    """
    # For each user, until when nothing is known of it, and a position that it has seen.
    seen: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    possible = set()
    for request in sorted(history, key=lambda request: request.started):
        if not request.is_answered:
            continue
        floor = max((lsn for ended, lsn in seen[request.user] if ended < request.started), default=0)
        if request.is_write:
            seen[request.user].append((request.ended, positions.written(request.ended)))
        elif positions.replayed(request.started) >= floor:
            possible.add(request)
        else:
            seen[request.user].append((request.ended, positions.written(request.started)))
    return sum(read in possible for read in reads) / max(1, len(reads))
