"""What one run has shown, as a row of the table and as a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .checker import (
    FinalState,
    Permission,
    Problem,
    Violation,
    backward_reads,
    bound_reads,
    doubled_writes,
    forbidden_errors,
    lost_writes,
    missed_by_tasks,
    missed_own_writes,
    published_tokens,
)
from .faults import Fault
from .history import Operation, TaskRun, by_user
from .statistics import percentile

LEAST_BOUND_READS = 300
SHOWN = 3

COLUMNS = (
    "fault, under load",
    "mode",
    "seed",
    "requests",
    "bound reads",
    "on replicas",
    "GET errors (allowed / forbidden)",
    "POST errors (allowed / forbidden)",
    "missed own write",
    "backwards",
    "lost (excused)",
    "twice",
    "p50 / p99 / p99.9 of GET, ms",
    "verdict",
    "evidence",
)


@dataclass(slots=True, kw_only=True)
class Result:
    """One run: its history judged."""

    title: str
    mode: str
    seed: int
    history: Sequence[Operation]
    final: FinalState
    fault: Fault
    leaks: Sequence[str] = ()
    runs: Sequence[TaskRun] = ()
    """Of the tasks that were published, if any."""
    least_on_replicas: float = 0.0
    """Which part of them must be answered by replicas."""
    must_find: Problem | None = None
    """How the checker must catch the site, if that is a control."""
    missed: list[Violation] = field(init=False)
    backwards: list[Violation] = field(init=False)
    lost: list[Violation] = field(init=False)
    excused: list[Violation] = field(init=False)
    twice: list[Violation] = field(init=False)
    forbidden: list[Violation] = field(init=False)
    missed_by_tasks: list[Violation] = field(init=False)
    bound: int = field(init=False)
    complaints: list[str] = field(init=False)

    def __post_init__(self) -> None:
        fault, history, final = self.fault, self.history, self.final
        self.missed = missed_own_writes(history, final, fault.exempts)
        self.backwards = backward_reads(history, final, fault.exempts)
        lost = lost_writes(history, final)
        self.excused = [violation for violation in lost if fault.excuses_loss(violation.operations[0])]
        self.lost = [violation for violation in lost if violation not in self.excused]
        self.twice = doubled_writes(history, final)
        self.forbidden = forbidden_errors(history, self._permission())
        self.missed_by_tasks = missed_by_tasks(history, self.runs)
        self.bound = len(bound_reads(history))
        self.complaints = [*fault.complaints(history, final), *self.leaks, *self._complaints_of_tasks()]
        if self.bound < LEAST_BOUND_READS:
            self.complaints.append(f"only {self.bound} reads were bound by a pointer, not {LEAST_BOUND_READS} at least")
        if fault.unseen or not fault.evidence:
            self.complaints.append(f"the servers' own counters do not show the fault: {'; '.join(fault.unseen) or 'nothing was looked at'}")

    def _complaints_of_tasks(self) -> Iterable[str]:
        lost = self.lost_tasks
        if len(lost) > self.fault.lost_messages:
            yield f"{len(lost)} tasks were published and never run, not {self.fault.lost_messages} at most: {', '.join(lost[:SHOWN])}"
        if self.runs and self._on_replicas < self.least_on_replicas:
            yield f"replicas answered {self._on_replicas:.0%} of the tasks, not {self.least_on_replicas:.0%} at least"

    @property
    def lost_tasks(self) -> list[str]:
        """What the tasks that were published but never run were to find."""
        run = {run.token for run in self.runs}
        return [token for token in published_tokens(self.history) if token not in run]

    @property
    def _on_replicas(self) -> float:
        return sum(run.is_on_replicas for run in self.runs) / max(1, len(self.runs))

    @property
    def _told_of_tasks(self) -> list[str]:
        if not self.runs:
            return []
        again, redelivered = (sum(getattr(run, name) for run in self.runs) for name in ("came_again", "redelivered"))
        return [
            f"{len(published_tokens(self.history))} tasks ran {len(self.runs)} times, {self._on_replicas:.0%} on replicas",
            f"{again} runs after they had come again, {redelivered} redelivered",
            f"{len(self.missed_by_tasks)} missed their write, {len(self.lost_tasks)} tasks were lost",
        ]

    def _permission(self) -> Permission:
        allowances = tuple(self.fault.allowances())
        # What a user saw on the primary binds them in this mode as a write of their own does.
        is_monotonic = self.mode == "monotonic"
        binding = {
            own[0].user: [each for each in own if each.is_write or (is_monotonic and "default" in each.hosts)]
            for own in by_user(self.history)
        }

        def is_allowed(operation: Operation) -> bool:
            # A read that has given rows away cannot go on elsewhere, whatever breaks.
            return operation.has_delivered_rows or any(allowance.allows(operation, binding[operation.user]) for allowance in allowances)

        return is_allowed

    @property
    def violations(self) -> list[Violation]:
        """What breaks a promise of this mode."""
        backwards = self.backwards if self.mode == "monotonic" else []
        return [*self.missed, *backwards, *self.lost, *self.twice, *self.forbidden, *self.missed_by_tasks]

    @property
    def has_failed(self) -> bool:
        if self.must_find is not None:
            return all(violation.problem is not self.must_find for violation in (*self.missed, *self.backwards, *self.missed_by_tasks))
        return bool(self.violations or self.complaints)

    @property
    def verdict(self) -> str:
        if self.must_find is not None:
            return "NOT CAUGHT" if self.has_failed else "caught"
        return "FAILED" if self.has_failed else "well"

    def row(self) -> list[str]:
        """Return the cells of the table, as `COLUMNS` names them."""
        gets = [operation for operation in self.history if not operation.is_write]
        posts = [operation for operation in self.history if operation.is_write]
        answered = [read for read in gets if read.is_acknowledged]
        on_replicas = sum(read.is_on_replicas for read in answered) / max(1, len(answered))
        is_told = any(read.hosts for read in answered)
        times = " / ".join(f"{percentile([read.seconds for read in gets], percent) * 1000:.0f}" for percent in (50, 99, 99.9))
        return [
            self.title,
            self.mode,
            str(self.seed),
            str(len(self.history)),
            str(self.bound),
            f"{on_replicas:.0%}" if is_told else "not told",
            self._errors(gets),
            self._errors(posts),
            str(len(self.missed)),
            str(len(self.backwards)),
            f"{len(self.lost)} ({len(self.excused)})",
            str(len(self.twice)),
            times,
            self.verdict,
            "; ".join([*self.fault.evidence, *self._told_of_tasks]),
        ]

    def describe(self) -> Iterable[str]:
        """Give what is wrong, the shortest history that shows it first, a few of each kind."""
        kinds = {violation.problem for violation in self.violations}
        for kind in sorted(kinds):
            same = sorted((v for v in self.violations if v.problem is kind), key=lambda violation: len(violation.operations))
            yield from (str(violation) for violation in same[:SHOWN])
            if len(same) > SHOWN:
                yield f"… and {len(same) - SHOWN} more: {kind}"
        yield from self.complaints
        if self.fault.story:
            yield f"what happened: {', '.join(self.fault.story)}"

    def _errors(self, operations: Sequence[Operation]) -> str:
        forbidden = {violation.operations[0].number for violation in self.forbidden}
        failed = [operation for operation in operations if operation.has_failed]
        wrong = sum(operation.number in forbidden for operation in failed)
        return f"{len(failed) - wrong} / {wrong}"


def table(results: Iterable[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(result.row() for result in results)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
