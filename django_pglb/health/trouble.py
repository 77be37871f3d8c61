"""What may be said in public about an error of a probe.

An error's own text may hold secrets: libpq quotes what it cannot parse, passwords included. So known phrases are recognised
and said in words of our own, and anything else is reduced to its class and SQLSTATE.
"""

from __future__ import annotations

import psycopg

# libpq's phrases, which are not localised unless libpq itself is. Longer ones first where one contains another.
PHRASES = {
    "Connection refused": "connection refused",
    "connection timeout expired": "connection timed out",
    "failed to resolve host": "host name not resolved",
    "No such file or directory": "no such socket",
    "No route to host": "no route to host",
    "Network is unreachable": "network unreachable",
    "authentication failed": "authentication failed",
    "no password supplied": "no password supplied",
    "no pg_hba.conf entry": "refused by pg_hba.conf",
    "too many clients": "too many connections",
    "too many connections": "too many connections",
    "remaining connection slots": "too many connections",
    "is starting up": "starting up",
    "not yet accepting connections": "starting up",
    "in recovery mode": "recovering from a crash",
    "is shutting down": "shutting down",
    "not accepting connections": "not accepting connections",
    "unsupported startup parameter": "a pooler refuses startup options: set POOLED",
    "does not exist": "database or role does not exist",
    "certificate": "TLS certificate not accepted",
    "SSL": "TLS failed",
    "server closed the connection": "connection lost",
    "Connection reset": "connection lost",
    "connection socket closed": "connection lost",
    "terminating connection": "connection ended by the server",
}

# What says that nobody is there to answer, on connections that are open already either. A full server still answers those.
UNREACHABLE = frozenset(
    {"connection refused", "connection timed out", "no such socket", "no route to host", "network unreachable", "connection lost"}
)


def is_unreachable(error: Exception) -> bool:
    """Say whether `error` means that the host does not answer, rather than that it, or a setting, refused this connection."""
    return isinstance(error, psycopg.OperationalError) and not error.sqlstate and _said(error) in UNREACHABLE


def is_cancelled_by_replay(error: psycopg.Error) -> bool:
    """Say whether `error` is a connection attempt that replay has cancelled: that comes without an SQLSTATE."""
    return not error.sqlstate and "conflict with recovery" in str(error)


def describe(error: Exception) -> str:
    """Return what happened, without anything that a setting may have put into the error."""
    name = type(error).__name__
    if not isinstance(error, psycopg.Error):
        return f"cannot be probed ({name})"
    if error.sqlstate:
        return f"probe failed ({name}, SQLSTATE {error.sqlstate})"
    if not isinstance(error, psycopg.OperationalError):
        return f"wrong connection settings ({name})"
    return f"{_said(error)} ({name})"


def _said(error: psycopg.OperationalError) -> str:
    text = str(error)
    return next((words for phrase, words in PHRASES.items() if phrase in text), "cannot connect")
