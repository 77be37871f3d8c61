"""Whose fault a failure is, and who answers then."""

from __future__ import annotations

import pytest

from django_pglb.core.retry import Verdict, judge


@pytest.mark.parametrize(
    ("sqlstate", "lost", "expected"),
    [
        (None, True, Verdict.HOST_OUT),
        (None, False, Verdict.RAISE),
        ("57P01", True, Verdict.HOST_OUT),
        ("08P01", True, Verdict.HOST_OUT),
        ("40001", False, Verdict.HOST_STAYS),
        ("40001", True, Verdict.HOST_STAYS),
        ("25006", False, Verdict.WAS_WRITE),
        ("42P01", False, Verdict.PRIMARY),
        ("42703", False, Verdict.PRIMARY),
        ("0A000", False, Verdict.PRIMARY),
        ("55000", False, Verdict.PRIMARY),
        ("57014", False, Verdict.RAISE),
        ("55P03", False, Verdict.RAISE),
        ("22012", False, Verdict.RAISE),
        ("25P03", True, Verdict.HOST_OUT),
    ],
)
def test_failures_on_a_replica_are_judged_by_sqlstate_and_connection(sqlstate: str | None, lost: bool, expected: Verdict) -> None:
    """Trouble of the host goes elsewhere, the caller's own errors are raised."""
    assert judge(sqlstate, connection_lost=lost) is expected
