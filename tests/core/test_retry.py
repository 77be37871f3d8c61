"""Whose fault a failure is, and who answers then. That servers really say so is tested where there are servers."""

from __future__ import annotations

import pytest
from psycopg import errors

from django_pglb.core.retry import TABLE, OnPrimary, Phase, Row, Verdict, judge, judge_on_primary, was_refused


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.exception)
def test_rows_name_their_error_as_psycopg_does(row: Row) -> None:
    """Whoever reads the table finds the same word in a traceback."""
    assert errors.lookup(row.sqlstate).__name__ == row.exception


def test_no_sqlstate_has_two_rows() -> None:
    assert len({row.sqlstate for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.exception)
@pytest.mark.parametrize("lost", [False, True])
def test_row_decides_whether_or_not_the_connection_survived(row: Row, lost: bool) -> None:
    """A recovery conflict may end the connection and still says nothing against the host."""
    assert judge(row.sqlstate, Phase.STATEMENT, connection_lost=lost) is row.on_replica


@pytest.mark.parametrize(
    ("sqlstate", "lost", "expected"),
    [
        (None, True, Verdict.HOST_OUT),
        (None, False, Verdict.RAISE),
        ("57014", False, Verdict.RAISE),
        ("55P03", False, Verdict.RAISE),
        ("22012", False, Verdict.RAISE),
        ("08006", True, Verdict.HOST_OUT),
        ("28P01", True, Verdict.HOST_OUT),
        ("57000", True, Verdict.HOST_OUT),
        ("53400", False, Verdict.RAISE),
        ("08000", False, Verdict.RAISE),
        ("08001", False, Verdict.RAISE),
    ],
)
def test_what_has_no_row_is_the_hosts_if_the_connection_broke(sqlstate: str | None, lost: bool, expected: Verdict) -> None:
    """And the caller's own if it did not: limits that the caller set, wrong queries, foreign servers."""
    assert judge(sqlstate, Phase.STATEMENT, connection_lost=lost) is expected


@pytest.mark.parametrize("sqlstate", [None, *(row.sqlstate for row in TABLE)])
def test_nothing_leaves_its_transaction_or_half_an_answer(sqlstate: str | None) -> None:
    """Another server has another snapshot."""
    assert judge(sqlstate, Phase.HELD, connection_lost=True) is Verdict.RAISE


@pytest.mark.parametrize(
    ("sqlstate", "lost", "expected"),
    [
        (None, True, OnPrimary.RAISE),
        (None, False, OnPrimary.RAISE),
        ("57P01", True, OnPrimary.RAISE),
        ("57P03", True, OnPrimary.AGAIN_IF_LOST),
        ("57P03", False, OnPrimary.RAISE),
        ("25006", False, OnPrimary.AGAIN_IF_DEMOTED),
        ("40001", False, OnPrimary.RAISE),
        ("42P01", False, OnPrimary.RAISE),
        ("08P01", True, OnPrimary.RAISE),
        ("57P05", True, OnPrimary.AGAIN_IF_LOST),
        ("57P05", False, OnPrimary.RAISE),
        ("25P03", True, OnPrimary.AGAIN_IF_LOST),
        ("25P04", True, OnPrimary.RAISE),
        ("53300", True, OnPrimary.AGAIN_IF_LOST),
        ("08001", True, OnPrimary.AGAIN_IF_LOST),
        ("08004", True, OnPrimary.AGAIN_IF_LOST),
        ("08004", False, OnPrimary.RAISE),
        ("08006", True, OnPrimary.RAISE),
        ("08007", True, OnPrimary.RAISE),
        ("57P02", True, OnPrimary.RAISE),
        ("57014", False, OnPrimary.RAISE),
        ("53100", False, OnPrimary.RAISE),
    ],
)
def test_primary_runs_again_only_what_it_has_certainly_not_run(sqlstate: str | None, lost: bool, expected: OnPrimary) -> None:
    """A lost answer is an error, never a retry. What raises 57P03 and lives on is a procedure, which may have done anything before."""
    assert judge_on_primary(sqlstate, connection_lost=lost) is expected


@pytest.mark.parametrize(
    ("sqlstate", "text", "expected"),
    [
        ("57P05", "terminating connection due to idle-session timeout", True),
        ("57P03", "the database system is starting up", True),
        ("08P01", "query_wait_timeout", True),
        ("08P01", "server login has been failing, try again later (server_login_retry)", True),
        ("08P01", "server conn crashed?", False),
        ("08P01", "query_timeout", False),
        ("57P01", "terminating connection due to administrator command", False),
        (None, "server closed the connection unexpectedly", False),
    ],
)
def test_only_what_was_certainly_not_run_has_a_known_outcome(sqlstate: str | None, text: str, expected: bool) -> None:
    """Of everything else nobody knows whether it was committed."""
    assert was_refused(sqlstate, text) is expected
