"""The forms in which psycopg takes a statement: text, bytes, and composed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Composable

from ..core import statements
from ..core.session_state import session_change
from ..core.statements import Kind, classify

if TYPE_CHECKING:
    from ..core.session_state import SessionChange

_LOCAL_SETTING = re.compile(r"\s*SET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\s[^;]*;?\s*", re.IGNORECASE)


def kind_of(sql: Any, params: Any, db: Any) -> Kind:
    """Return what kind of statement `sql` is. What psycopg would not take counts as a write; psycopg will say what is wrong."""
    text = _text_of(sql, db)
    if text is None:
        return Kind.WRITE
    kind = classify(text)
    if kind is Kind.WRITE and params is None and "%" in text:
        # Without parameters psycopg replaces no placeholder, so a percent sign is one and nothing else.
        return classify(text.replace("%", "%%"))
    return kind


def change_of(sql: Any, db: Any) -> SessionChange | None:
    """Return what a write leaves behind in its session, or None."""
    text = sql.decode(errors="replace") if isinstance(sql, bytes) else _text_of(sql, db)
    return None if text is None else session_change(text)


def _text_of(sql: Any, db: Any) -> str | None:
    """Return the text that will be sent; None if that cannot be told."""
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        # Where other bytes than these end depends on the encoding of the client.
        return sql.decode() if sql.isascii() else None
    if not isinstance(sql, Composable):
        return None
    try:
        return sql.as_string(db.connection)
    except Exception:  # noqa: BLE001 - an adapter of the user's, or one that only an open connection knows
        return None


def is_empty(sql: Any, db: Any) -> bool:
    """Say whether there is plainly no statement in `sql`, which then gives no result."""
    text = _text_of(sql, db)
    return text is not None and statements.is_empty(text)


def is_local_setting(sql: Any) -> bool:
    """Say whether `sql` is plainly one statement that sets something for the transaction that is open, and nothing else."""
    return isinstance(sql, str) and _LOCAL_SETTING.fullmatch(sql) is not None


def enclosed(before: str, sql: Any, after: str) -> Any:
    """Return `sql` between two statements, either of which may be empty, in the form that it has."""
    head = f"{before}; " if before else ""
    # On a line of its own: `sql` may end with a comment.
    tail = f"\n; {after}" if after else ""
    if isinstance(sql, bytes):
        return head.encode() + sql + tail.encode()
    return SQL(head) + sql + SQL(tail) if isinstance(sql, Composable) else head + sql + tail
