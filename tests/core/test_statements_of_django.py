"""What Django itself sends, as the classifier sees it; on a real standby, where a write could not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.exceptions import EmptyResultSet
from django.db import ConnectionHandler, models
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from django_pglb.core.harmless_functions import BUILT_IN
from django_pglb.core.sql_grammar import KEYWORDS
from django_pglb.core.statements import Kind, classify
from django_pglb.testing import Cluster
from django_pglb.testing.postgres import PostgresHost

from .django_queries import make_model, querysets
from .statement_corpus import LOCKING_READS, READS, TABLES, WRITES

NAME = "statements"
READ_ONLY = "25006"


@pytest.fixture(scope="module")
def standby(cluster: Cluster, django_db_blocker: Any) -> PostgresHost:
    """A hot standby that has a database for statements, with the corpus's tables and those of the querysets."""
    cluster.heal()
    cluster.create_database(NAME)
    with cluster.primary.connect(dbname=NAME, autocommit=True) as connection:
        connection.execute(TABLES.encode())
    with django_db_blocker.unblock():
        primary = wrapper_of(cluster.primary)
        with primary.schema_editor(atomic=False) as editor:
            for model in (*models_of_users(), make_model()):
                editor.create_model(model)
        primary.close()
    cluster.wait_until_replicas_caught_up()
    return cluster.replicas[0]


@pytest.fixture
def connection(standby: PostgresHost) -> Iterator[psycopg.Connection[Any]]:
    with standby.connect(dbname=NAME, autocommit=True) as connection:
        yield connection


@pytest.fixture
def wrapper(standby: PostgresHost, django_db_blocker: Any) -> Iterator[BaseDatabaseWrapper]:
    wrapper = wrapper_of(standby)
    with django_db_blocker.unblock():
        yield wrapper
        wrapper.close()


def wrapper_of(host: PostgresHost) -> BaseDatabaseWrapper:
    """Django's own engine on one host, outside the site's settings."""
    return ConnectionHandler({"default": host.settings(NAME, "django.db.backends.postgresql")})["default"]


def models_of_users() -> list[type[models.Model]]:
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.contenttypes.models import ContentType

    return [ContentType, Permission, Group, User]


def sqlstate_of(connection: psycopg.Connection[Any], text: str) -> str | None:
    """Run a statement, to its last row, and return what it failed with."""
    try:
        with connection.cursor() as cursor:
            if text.startswith("COPY"):
                with cursor.copy(text.encode()) as copy:
                    list(copy)
            else:
                cursor.execute(text.encode())
    except psycopg.Error as error:
        return error.sqlstate or type(error).__name__
    return None


@pytest.mark.parametrize("text", READS)
def test_reads_run_on_a_hot_standby(connection: psycopg.Connection[Any], text: str) -> None:
    """What is classified as a read runs there without any error."""
    assert sqlstate_of(connection, text) is None


@pytest.mark.parametrize("text", LOCKING_READS)
def test_locking_reads_do_not(connection: psycopg.Connection[Any], text: str) -> None:
    """They are refused there as what they are, so telling them apart is needed."""
    assert sqlstate_of(connection, text) == READ_ONLY


def test_the_corpus_of_writes_is_not_made_of_syntax_errors(connection: psycopg.Connection[Any]) -> None:
    """At least fifty of them are refused by the standby for being writes."""
    assert sum(sqlstate_of(connection, text) == READ_ONLY for text in WRITES if not text.startswith(("COPY book TO", "LISTEN"))) >= 50


def test_querysets_are_reads_and_run_on_a_hot_standby(wrapper: BaseDatabaseWrapper) -> None:
    """Everything that Django's ORM emits for reading is proved to be a read, and runs."""
    needless: list[str] = []
    count = 0
    for queryset in querysets(make_model()):
        try:
            text, parameters = queryset.query.get_compiler(connection=wrapper).as_sql()
        except EmptyResultSet:
            continue
        count += 1
        if classify(text) is not Kind.READ:
            needless.append(text)
        if "digest(" not in text.lower():  # SHA-224 comes from pgcrypto, which the test database has not
            with wrapper.cursor() as cursor:
                cursor.execute(text, parameters)
    assert needless == []
    assert count > 100


def test_locking_querysets_are_locking_reads(wrapper: BaseDatabaseWrapper) -> None:
    """`select_for_update()` in all its forms needs the primary, and is no write."""
    user = models_of_users()[-1]
    for options in ({}, {"nowait": True}, {"skip_locked": True}, {"no_key": True}, {"of": ("self",)}):
        queryset = user._base_manager.select_for_update(**options)
        wrapper.set_autocommit(False)
        text, _ = queryset.query.get_compiler(connection=wrapper).as_sql()
        assert classify(text) is Kind.LOCKING_READ, text


def test_introspection_is_made_of_reads(wrapper: BaseDatabaseWrapper) -> None:
    """What `inspectdb` and the migration commands ask of a database runs on a standby."""
    seen: list[str] = []

    def record(execute: Any, text: str, parameters: Any, many: bool, context: Any) -> Any:
        seen.append(text)
        return execute(text, parameters, many, context)

    wrapper.ensure_connection()
    with wrapper.execute_wrapper(record), wrapper.cursor() as cursor:
        introspection = wrapper.introspection
        for table in introspection.table_names(cursor):
            introspection.get_table_description(cursor, table)
            introspection.get_sequences(cursor, table)
            introspection.get_relations(cursor, table)
            introspection.get_constraints(cursor, table)
    assert [text for text in seen if classify(text) is not Kind.READ] == []
    assert len(seen) > 20


def test_keywords_cannot_be_functions(connection: psycopg.Connection[Any]) -> None:
    """PostgreSQL reserves each word of the table at least from being a function."""
    rows = connection.execute("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'C')").fetchall()
    assert KEYWORDS - {word for (word,) in rows} == set()


# Volatile for what they return, not for what they do.
VOLATILE_AND_HARMLESS = frozenset(
    """
    array_sample array_shuffle clock_timestamp gen_random_uuid pg_database_size pg_indexes_size pg_is_in_recovery
    pg_is_wal_replay_paused pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_partition_ancestors
    pg_partition_tree pg_relation_size pg_sleep pg_sleep_for pg_sleep_until pg_table_size pg_tablespace_size pg_total_relation_size
    random random_normal timeofday uuidv4 uuidv7
    """.split()  # noqa: SIM905 - a list of names reads better as text
)


def test_built_in_functions_of_the_table_are_not_volatile(connection: psycopg.Connection[Any]) -> None:
    """PostgreSQL itself calls them immutable or stable, but for those that are named here with a reason."""
    rows = connection.execute(
        sql.SQL("SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND pronamespace = 'pg_catalog'::regnamespace")
    ).fetchall()
    assert {name for (name,) in rows} & BUILT_IN == VOLATILE_AND_HARMLESS & {name for (name,) in rows}


def test_built_in_functions_of_the_table_exist(connection: psycopg.Connection[Any]) -> None:
    """No name is misspelt: each is a function, or a keyword that stands for one."""
    if connection.info.server_version < 180000:
        pytest.skip("the table has functions that came with PostgreSQL 18")
    rows = connection.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace UNION SELECT word FROM pg_get_keywords()"
    ).fetchall()
    assert BUILT_IN - {name for (name,) in rows} == set()
