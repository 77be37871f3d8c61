"""The forms in which psycopg takes a statement: text, bytes, and composed."""

from __future__ import annotations

from typing import Any

from psycopg.sql import SQL, Composable

from ..core.statements import Kind, classify


def kind_of(sql: Any, db: Any) -> Kind:
    """Return what kind of statement `sql` is. What psycopg would not take counts as a write; psycopg will say what is wrong."""
    if isinstance(sql, str):
        return classify(sql)
    if isinstance(sql, bytes):
        return classify(sql.decode("utf-8", "replace"))
    return classify(sql.as_string(db.connection)) if isinstance(sql, Composable) else Kind.WRITE


def prefixed(prefix: str, sql: Any) -> Any:
    """Return `sql` behind another statement, in the form that it has."""
    if isinstance(sql, bytes):
        return prefix.encode() + sql
    return SQL(prefix) + sql if isinstance(sql, Composable) else prefix + sql
