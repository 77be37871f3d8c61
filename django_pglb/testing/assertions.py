"""Assertions on routing, for the tests of projects that use the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..core.decision import Decision, Reason
from ..signals import statement_routed


@contextmanager
def recorded_decisions() -> Iterator[list[Decision]]:
    """Collect where each statement inside the block ran and why, in all threads of this process.

    Requests of Django's test client are covered as well, which `current_decisions()` cannot see from outside.
    """
    decisions: list[Decision] = []

    def record(decision: Decision, **_: object) -> None:
        decisions.append(decision)

    statement_routed.connect(record)
    try:
        yield decisions
    finally:
        statement_routed.disconnect(record)


@contextmanager
def assert_served_by(*aliases: str, reasons: Iterable[Reason | str] | None = None) -> Iterator[list[Decision]]:
    """Assert that the block runs statements, all of them on one of `aliases`, and for one of `reasons` if those are given.

    In a `TestCase` every alias is the primary, for the reason `transaction`: use a `TransactionTestCase` with the replicas in
    `databases` to see the mirror answer, or the local cluster to see a real one. Raises `AssertionError`.
    """
    wanted = None if reasons is None else {Reason(reason) for reason in reasons}
    with recorded_decisions() as decisions:
        yield decisions
    if not decisions:
        raise AssertionError(f"expected statements on {' or '.join(aliases)}, but none was run")
    wrong = [f"{alias} ({reason})" for alias, reason in decisions if alias not in aliases or (wanted is not None and reason not in wanted)]
    if wrong:
        because = "" if wanted is None else f" for {' or '.join(sorted(wanted))}"
        raise AssertionError(f"expected statements on {' or '.join(aliases)}{because} only, but also found {', '.join(wrong)}")
