"""What statements leave behind in a session."""

from __future__ import annotations

import pytest

from django_pglb.core.session_state import (
    CLEAN,
    HELD,
    LISTENING,
    PREPARED,
    TEMPORARY,
    TRANSACTION,
    UNKNOWN,
    SessionState,
    session_change,
    settings_made,
)

LEAVE_BEHIND = {
    "SET ROLE tenant_a": "role",
    'set session role "tenant_a"': "role",
    "SET SESSION AUTHORIZATION ann": "session_authorization",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "session_characteristics",
    "SET search_path = a, public": "search_path",
    'SET "search_path" TO a': "search_path",
    "SET SCHEMA 'a'": "search_path",
    "SET app.tenant = '1'": "app.tenant",
    "SET SESSION app.tenant TO '1'": "app.tenant",
    "SET TIME ZONE 'Asia/Tokyo'": "timezone",
    "SET NAMES 'LATIN1'": "client_encoding",
    "SET app.tenant TO %s": "app.tenant",
    "/* x */ SET ROLE a -- y": "role",
    "SELECT 1; SET ROLE a": "role",
    "SET LOCAL a.b = 1; SET ROLE a": "role",
    "SELECT set_config('app.tenant', 'a', false)": "app.tenant",
    "SELECT set_config('app.tenant', %s, false)": "app.tenant",
    "SELECT set_config('app.tenant', %s, %s)": "app.tenant",
    "SELECT pg_catalog.SET_CONFIG ('app.tenant', upper('a'), NOT true)": "app.tenant",
    "SELECT set_config(%s, %s, false)": UNKNOWN,
    "SELECT set_config('a.b', 'true', 'true')": "a.b",
    "SELECT set_config('a.b', coalesce('c', (SELECT 'd')), false), 1": "a.b",
    "INSERT INTO t VALUES (1) RETURNING set_config('a.b', 'c', false)": "a.b",
    "UPDATE t SET x = set_config('a.b', 'c', false)": "a.b",
    "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x": "a.b",
    "EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false)": "a.b",
    "SELECT U&\"set\\005fconfig\"('a.b', 'c', false), 'set_config'": UNKNOWN,
    "SELECT U&\"set\\005fconfig\"('a.b', 'c', false)": UNKNOWN,
    "UPDATE pg_settings SET setting = 'a' WHERE name = 'search_path'": UNKNOWN,
    'WITH x AS (SELECT 1) UPDATE pg_catalog."pg_settings" s SET setting = %s': UNKNOWN,
    "LISTEN news": LISTENING,
    "CREATE TEMP TABLE t (a int)": TEMPORARY,
    "CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT 1": TEMPORARY,
    "CREATE LOCAL TEMPORARY TABLE t (a int) ON COMMIT DELETE ROWS": TEMPORARY,
    "CREATE OR REPLACE TEMP VIEW v AS SELECT 1": TEMPORARY,
    "CREATE TEMP SEQUENCE s": TEMPORARY,
    "CREATE TABLE pg_temp.t (a int)": TEMPORARY,
    "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1": TEMPORARY,
    "SELECT 1 AS one INTO TEMP t": TEMPORARY,
    "SELECT * INTO LOCAL TEMPORARY TABLE t FROM u": TEMPORARY,
    "SELECT * INTO pg_temp.t FROM u": TEMPORARY,
    "PREPARE p AS SELECT 1": PREPARED,
    "EXECUTE p": PREPARED,
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1": HELD,
    "LOAD 'auto_explain'": "loaded libraries",
    "SELECT setseed(0.5)": "the random seed",
    "SELECT x.setseed FROM random() x": "the random seed",
    "BEGIN": TRANSACTION,
    "START TRANSACTION READ ONLY": TRANSACTION,
    "DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$": UNKNOWN,
    "DO $$ BEGIN EXECUTE 'SET ROLE a'; END $$": UNKNOWN,
    "DO $$ BEGIN SET ROLE a; END $$": UNKNOWN,
    # Where the text could be cut in two ways.
    r"SET a.b = 'c\'d'": UNKNOWN,
    r"SELECT set_config('a.b', 'c\'', false)": UNKNOWN,
}
LEAVE_NOTHING = [
    "SELECT 1",
    "INSERT INTO t VALUES (1)",
    "INSERT INTO temp (a) VALUES (1)",
    "UPDATE t SET role = 'a'",
    "INSERT INTO t SELECT name FROM pg_settings",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "UPDATE template SET temp = 1",
    "DELETE FROM t",
    "SET LOCAL ROLE a",
    "SET LOCAL app.tenant = '1'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SELECT set_config('app.tenant', 'a', true)",
    "SELECT set_config('app.tenant', %s, TRUE)",
    "SELECT set_config('a.b', 'c', is_local => true)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
    "CREATE TABLE t (a int)",
    "CREATE TABLE temp (a int)",
    "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = a AS $$ SELECT set_config('a.b', 'c', false) $$",
    "ALTER ROLE a SET search_path = b",
    "ALTER DATABASE a RESET ALL",
    "DECLARE c CURSOR FOR SELECT 1",
    "INSERT INTO t VALUES ('SET ROLE a'), ('set_config(')",
    "SELECT 'CREATE TEMP TABLE' INTO t",
    "DO $$ BEGIN UPDATE t SET a = 1; END $$",
    "DO $$ BEGIN EXECUTE format('TRUNCATE %s', 't'); END $$",
    "BEGIN; SET LOCAL ROLE a; SELECT 1; COMMIT",
    "NOTIFY news",
    "LOCK TABLE t",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "CALL p()",
    "VACUUM",
    r"INSERT INTO t VALUES ('\'')",
]


@pytest.mark.parametrize("sql", LEAVE_BEHIND)
def test_what_is_left_behind(sql: str) -> None:
    """One thing, under its own name, and the unit of work must stay with it."""
    change = session_change(sql)
    assert change is not None
    assert change.matters
    assert CLEAN.after(change).carried == {LEAVE_BEHIND[sql]}


@pytest.mark.parametrize("sql", LEAVE_NOTHING)
def test_nothing_is_left_behind(sql: str) -> None:
    """What ends with its transaction, and what is no session's, binds nobody."""
    change = session_change(sql)
    assert change is None or not (change.matters or change.sets)


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_lock_shared", "pg_catalog.pg_advisory_lock"])
def test_locks_are_counted(function: str) -> None:
    """A session that has released as many as it took is clean again."""
    taken = session_change(f"SELECT {function}(1)")
    assert taken is not None
    assert taken.matters
    twice = CLEAN.after(taken).after(taken)
    released = session_change("SELECT pg_advisory_unlock(1)")
    assert released is not None
    assert not released.matters
    assert not twice.after(released).is_clean
    assert twice.after(released).after(released).is_clean
    assert twice.after(session_change("SELECT pg_advisory_unlock_all()") or released).is_clean


def test_locks_of_each_row_are_not_counted() -> None:
    """Only what releases all of them certainly does."""
    taken = session_change("SELECT pg_advisory_lock(id) FROM t")
    released = session_change("SELECT pg_advisory_unlock(1)")
    every = session_change("SELECT pg_advisory_unlock_all()")
    assert taken is not None
    assert released is not None
    assert every is not None
    held = CLEAN.after(taken)
    assert not held.after(released).is_clean
    assert not held.rolled_back(CLEAN).is_clean
    assert held.after(every).is_clean


LEFT = {"role", "app.tenant", TEMPORARY, PREPARED, LISTENING, HELD, TRANSACTION, UNKNOWN}
ENDED = {
    "DISCARD ALL": LEFT,
    "RESET ALL": {"app.tenant"},
    "RESET ROLE": {"role"},
    "SET ROLE NONE": {"role"},
    "SET app.tenant TO DEFAULT": {"app.tenant"},
    'RESET "app"."tenant"': {"app.tenant"},
    "DISCARD TEMP": {TEMPORARY},
    "DISCARD PLANS": set(),
    "UNLISTEN *": {LISTENING},
    "UNLISTEN news": set(),
    "DEALLOCATE ALL": {PREPARED},
    "DEALLOCATE p": set(),
    "CLOSE ALL": {HELD},
    "COMMIT": {TRANSACTION},
    "ROLLBACK": {TRANSACTION},
    "ROLLBACK TO a": set(),
    "END": {TRANSACTION},
    "COMMIT AND CHAIN": set(),
}


@pytest.mark.parametrize("sql", ENDED)
def test_what_ends(sql: str) -> None:
    """Only what is certainly gone."""
    change = session_change(sql)
    left = SessionState(frozenset(LEFT), 1)
    after = left if change is None else left.after(change)
    assert LEFT - after.carried == ENDED[sql]
    assert after.locks == (0 if sql == "DISCARD ALL" else 1)


@pytest.mark.parametrize("sql", ["RESET ALL", "RESET ROLE", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "SET ROLE NONE"])
def test_resets_keep_the_unit_of_work(sql: str) -> None:
    """They may take away what the connection was opened with."""
    change = session_change(sql)
    assert change is not None
    assert change.matters


@pytest.mark.parametrize("sql", ["COMMIT", "SELECT pg_advisory_unlock(1)", "UNLISTEN *", "DEALLOCATE ALL", "CLOSE ALL"])
def test_to_end_something_changes_no_answer(sql: str) -> None:
    """What is given back is no reason to stay."""
    change = session_change(sql)
    assert change is not None
    assert not change.matters


ROLLED_BACK = {
    "SET ROLE a": {"app.tenant"},
    "SET app.tenant = 'b'": {"app.tenant"},
    "RESET app.tenant": {"app.tenant"},
    "LISTEN news": {"app.tenant"},
    "CREATE TEMP TABLE t (a int)": {"app.tenant"},
    "PREPARE p AS SELECT 1": {"app.tenant", PREPARED},
    "DO $$ BEGIN SET ROLE a; END $$": {"app.tenant", UNKNOWN},
}


@pytest.mark.parametrize("sql", ROLLED_BACK)
def test_what_a_rollback_leaves(sql: str) -> None:
    """What was there before, and what is no matter of transactions."""
    before = SessionState(frozenset({"app.tenant"}))
    change = session_change(sql)
    assert change is not None
    assert before.after(change).rolled_back(before).carried == ROLLED_BACK[sql]


def test_locks_outlive_a_rollback() -> None:
    """They are the session's."""
    taken = session_change("SELECT pg_advisory_lock(1)")
    assert taken is not None
    assert not CLEAN.after(taken).rolled_back(CLEAN).is_clean


MADE: dict[str, set[str] | None] = {
    "SELECT set_config('app.tenant', 'a', false)": {"app.tenant"},
    "SELECT set_config('app.tenant', 'a', false), set_config('search_path', 'b', false)": {"app.tenant", "search_path"},
    "SET ROLE a; SET search_path = b": {"role", "search_path"},
    "SET app.tenant TO 'a'": {"app.tenant"},
    "SET LOCAL app.tenant TO 'a'": set(),
    "SELECT 1": set(),
    "SELECT become('a')": None,
    "SELECT set_config('app.tenant', become('a'), false)": None,
    "SELECT set_config(lower('APP.TENANT'), 'a', false)": None,
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": None,
    "SELECT pg_advisory_lock(1)": None,
    "CREATE TEMP TABLE t (a int)": None,
    "INSERT INTO t VALUES (1)": None,
    "RESET ALL": None,
    "SET a.b = 'c'; CALL p()": None,
    r"SET a.b = 'c\'": None,
}


@pytest.mark.parametrize("sql", MADE)
def test_settings_that_can_be_reset(sql: str) -> None:
    """Only if nothing else can have been left behind."""
    assert settings_made(sql) == MADE[sql]
