"""What clients did to registers that only grow, and whether anybody read the past."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import NamedTuple


class Operation(NamedTuple):
    """One answered request. Times are seconds of one clock; `aliases` are the hosts that answered it, in order of first use."""

    user: int
    is_write: bool
    started: float
    ended: float
    value: int
    aliases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    is_bound: bool = False
    worker: str = ""

    @property
    def is_on_replicas(self) -> bool:
        return bool(self.aliases) and "default" not in self.aliases


class Violation(NamedTuple):
    """A read that began after the answer to a write of the same user, and did not show it."""

    read: Operation
    acknowledged: int

    def __str__(self) -> str:
        read = self.read
        where = ", ".join(f"{alias} ({reason})" for alias, reason in zip(read.aliases, read.reasons, strict=True))
        return f"user {read.user} read {read.value} from {where} after {self.acknowledged} had been acknowledged"


def find_violations(operations: Iterable[Operation]) -> list[Violation]:
    """Return the reads that miss a write of the reader's own, acknowledged before they began, from whichever device."""
    found = []
    for own in _by_user(operations):
        writes = sorted((operation for operation in own if operation.is_write), key=lambda write: write.ended)
        ends, highest = [write.ended for write in writes], _running_maximum(writes)
        for read in own:
            acknowledged = bisect_left(ends, read.started)
            if not read.is_write and acknowledged and read.value < highest[acknowledged - 1]:
                found.append(Violation(read, highest[acknowledged - 1]))
    return found


def reads_after_own_write(operations: Iterable[Operation]) -> list[Operation]:
    """Return the reads that began after the answer to a write of the same user: those that could have been violations."""
    found: list[Operation] = []
    for own in _by_user(operations):
        acknowledged_at = min((operation.ended for operation in own if operation.is_write), default=inf)
        found.extend(operation for operation in own if not operation.is_write and operation.started > acknowledged_at)
    return found


def reads_at_rest(operations: Iterable[Operation], seconds: float) -> list[Operation]:
    """Return the reads of users who had not begun a write in the `seconds` before, nor during them: no replica keeps these waiting."""
    found: list[Operation] = []
    for own in _by_user(operations):
        writes = [operation for operation in own if operation.is_write]
        at_rest = (read for read in own if not read.is_write and not any(_is_near(write, read, seconds) for write in writes))
        found.extend(at_rest)
    return found


def _is_near(write: Operation, read: Operation, seconds: float) -> bool:
    return write.started <= read.ended and write.ended >= read.started - seconds


def _by_user(operations: Iterable[Operation]) -> Iterable[list[Operation]]:
    by_user: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_user[operation.user].append(operation)
    return by_user.values()


def _running_maximum(writes: list[Operation]) -> list[int]:
    maxima: list[int] = []
    for write in writes:
        maxima.append(max(write.value, maxima[-1] if maxima else 0))
    return maxima
