"""Reads a history and says what it should not hold. Pure: no server, no clock.

1. Read your writes: every token whose write was acknowledged before a read of the same user began, and which survived, is in the read.
2. Monotonic reads: every surviving token that an earlier-completed read of the same user showed is in the later-begun read.
3. Nothing acknowledged is lost; where a promotion loses what had not been replicated, nothing that was begun after it.
4. Nothing is applied twice, and a register is as high as its tokens are many.
5. Every error is one that the fault in force allows.
6. Every run of a task finds what its publisher wrote, and every task that was published by an acknowledged write runs.

What survived is what the final primary holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from .history import Operation, TaskRun, by_user


class Problem(StrEnum):
    """What can be wrong with a history."""

    MISSED_OWN_WRITE = "a read missed the user's own write"
    WENT_BACK = "a read showed less than an earlier one"
    LOST = "an acknowledged write is lost"
    TWICE = "a write was applied twice"
    UNBALANCED = "a register and its tokens differ"
    TASK_MISSED = "a task missed its publisher's write"
    FORBIDDEN_ERROR = "an error that the fault does not allow"


@dataclass(frozen=True, slots=True)
class Violation:
    """A problem, with the shortest history that shows it."""

    problem: Problem
    operations: tuple[Operation, ...]
    detail: str = ""

    def __str__(self) -> str:
        lines = [f"{self.problem}{': ' + self.detail if self.detail else ''}", *(f"    {operation}" for operation in self.operations)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalState:
    """What the final primary holds: how often each token, and each user's register."""

    tokens: Mapping[str, int]
    registers: Mapping[int, int]
    users: Mapping[str, int]
    """Whose each token is."""


Permission = Callable[[Operation], bool]
Exemption = Callable[[Operation, Operation], bool]


def nothing(_: Operation) -> bool:
    """Allow nothing."""
    return False


def no_exemption(_: Operation, __: Operation) -> bool:
    """Exempt no read from showing a write."""
    return False


def missed_own_writes(history: Iterable[Operation], final: FinalState, is_exempt: Exemption = no_exemption) -> list[Violation]:
    """Return the reads that miss a write of the reader's own; `is_exempt(write, read)` says which need not show which."""
    found = []
    for own in by_user(history):
        acknowledged = sorted((write for write in own if write.is_write and write.is_acknowledged), key=lambda write: write.ended)
        for read in _answered_reads(own):
            due = [write for write in acknowledged if write.ended < read.started]
            found += _missed_by(read, due, final, is_exempt)
    return found


def _missed_by(read: Operation, due: list[Operation], final: FinalState, is_exempt: Exemption) -> list[Violation]:
    """Return at most one violation: the read with the latest write that it misses, or with all that its register should count."""
    seen = set(read.tokens)
    missed = [write for write in due if any(token in final.tokens and token not in seen for token in write.tokens)]
    missed = [write for write in missed if not is_exempt(write, read)]
    if missed:
        tokens = [token for token in missed[-1].tokens if token in final.tokens and token not in seen]
        more = f" and of {len(missed) - 1} other writes" if len(missed) > 1 else ""
        return [Violation(Problem.MISSED_OWN_WRITE, (missed[-1], read), f"misses {', '.join(tokens)}{more}")]
    survived = [token for write in due for token in write.tokens if token in final.tokens]
    if read.value < len(survived) and not any(is_exempt(write, read) for write in due):
        return [Violation(Problem.MISSED_OWN_WRITE, (*due, read), f"register {read.value} after {len(survived)} writes")]
    return []


def backward_reads(history: Iterable[Operation], final: FinalState, is_exempt: Exemption = no_exemption) -> list[Violation]:
    """Return the reads that lack what an earlier read of the same user had shown; `is_exempt(earlier, later)` says which may."""
    found = []
    for own in by_user(history):
        reads = _answered_reads(own)
        ended = sorted(reads, key=lambda read: read.ended)
        shown: dict[str, Operation] = {}
        position = 0
        for read in reads:
            while position < len(ended) and ended[position].ended < read.started:
                # The latest reader of each token makes the pair that is closest in time.
                shown.update(dict.fromkeys(ended[position].tokens, ended[position]))
                position += 1
            lacking = set(shown).difference(read.tokens).intersection(final.tokens)
            lacking = {token for token in lacking if not is_exempt(shown[token], read)}
            if lacking:
                earlier = max((shown[token] for token in lacking), key=lambda other: other.ended)
                lost = sorted(lacking.intersection(earlier.tokens))
                found.append(Violation(Problem.WENT_BACK, (earlier, read), f"lacks {', '.join(lost)}"))
    return found


def lost_writes(history: Iterable[Operation], final: FinalState) -> list[Violation]:
    """Return the acknowledged writes of which something is not on the final primary."""
    acknowledged = [operation for operation in history if operation.is_write and operation.is_acknowledged]
    lost = [(write, [token for token in write.tokens if token not in final.tokens]) for write in acknowledged]
    return [Violation(Problem.LOST, (write,), f"{', '.join(tokens)} is not there") for write, tokens in lost if tokens]


def doubled_writes(history: Iterable[Operation], final: FinalState) -> list[Violation]:
    """Return what was applied twice, and the registers that differ from their tokens."""
    writes = {token: operation for operation in history if operation.is_write for token in operation.tokens}
    found = [
        Violation(Problem.TWICE, (writes[token],) if token in writes else (), f"{token} is there {count} times")
        for token, count in final.tokens.items()
        if count > 1
    ]
    totals = Counter[int]()
    for token, count in final.tokens.items():
        totals[final.users[token]] += count
    for user, value in final.registers.items():
        if value != totals[user]:
            found.append(Violation(Problem.UNBALANCED, (), f"user {user}: register {value}, {totals[user]} tokens"))
    return found


def forbidden_errors(history: Iterable[Operation], is_allowed: Permission = nothing) -> list[Violation]:
    """Return the requests that failed although the fault in force does not allow it."""
    failed = (operation for operation in history if operation.has_failed or operation.ended == inf)
    return [Violation(Problem.FORBIDDEN_ERROR, (operation,)) for operation in failed if not is_allowed(operation)]


def missed_by_tasks(history: Iterable[Operation], runs: Iterable[TaskRun]) -> list[Violation]:
    """Return the runs of tasks that did not find what their publisher wrote, with the write."""
    writes = {token: operation for operation in history if operation.task for token in operation.tokens}
    return [
        Violation(Problem.TASK_MISSED, (writes[run.token],) if run.token in writes else (), str(run)) for run in runs if not run.has_found
    ]


def published_tokens(history: Iterable[Operation]) -> list[str]:
    """Return what tasks that certainly were published must find."""
    return [operation.tokens[-1] for operation in history if operation.task and operation.is_acknowledged]


def bound_reads(history: Iterable[Operation]) -> list[Operation]:
    """Return the reads that a pointer bound and that could have missed a write: one of the user's own was acknowledged before."""
    found: list[Operation] = []
    for own in by_user(history):
        first = min((write.ended for write in own if write.is_write and write.is_acknowledged), default=inf)
        found += [read for read in _answered_reads(own) if read.is_bound and read.started > first]
    return found


def _answered_reads(operations: Iterable[Operation]) -> list[Operation]:
    return [operation for operation in operations if not operation.is_write and operation.is_acknowledged]
