"""Whether a Redis lets this site do what it must: its user may lack a right, and it may be a copy that takes no writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .memory import Command

RIGHTS = "+mget +get +set +type +exists +eval"
NO_INFO = "This user may not call INFO, so nobody can tell whether this Redis forgets pointers to make room: +info."
# What the client library raises for a user who is not let in, and for one who may not do what connecting takes, as SELECT.
NOT_LET_IN = (AuthenticationError, NoPermissionError)
READ_ONLY = "is a read-only copy: LOCATION must name its master, or the sentinels that know it"


def attempts(key: str) -> dict[str, Command]:
    """Return what the site asks of Redis, by the name of the command that each one needs. `key` is nobody's."""
    return {
        "MGET": ("MGET", key),
        "GET": ("GET", key),
        "EVAL": ("EVAL", "return 1", 1, key),
        "TYPE": ("EVAL", "return redis.call('TYPE', KEYS[1]).ok", 1, key),
        "GET in a script": ("EVAL", "return redis.call('GET', KEYS[1])", 1, key),
        "EXISTS": ("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, key),
        # It sets what is there, and nothing is.
        "SET": ("EVAL", "return redis.call('SET', KEYS[1], '', 'XX')", 1, key),
    }


def refusal(names: Sequence[str], answers: Sequence[Any], *, user: str, keys: str) -> str:
    """Return what is missing, by the answers to `attempts`; empty if nothing is. Raises what is no refusal."""
    refused: dict[str, ResponseError] = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, ResponseError) and not str(answer).startswith("WRONGTYPE"):
            refused[name] = answer
        elif isinstance(answer, Exception):
            raise answer
    if not refused:
        return ""
    if "EVAL" in refused:
        # What scripts do could not be tried then.
        refused = {name: error for name, error in refused.items() if name in ("MGET", "GET", "EVAL")}
    errors = tuple(refused.values())
    if all(isinstance(error, ReadOnlyError) or "READONLY" in str(error) for error in errors):
        return READ_ONLY
    commands, why = " and ".join(refused), str(errors[0]).rstrip(".")
    if isinstance(errors[0], NoPermissionError) or "script" in why:
        return f"refuses {commands} ({why}): ACL SETUSER {user} {RIGHTS} ~{keys}*"
    return f"refuses {commands} ({why}): the site needs {RIGHTS.replace('+', '').upper()}"


def no_entry(error: Exception, *, user: str) -> str:
    """Return why nobody is let in, by one of `NOT_LET_IN`."""
    why = str(error).rstrip(".")
    command = re.search(r"run the '(\w+)", why)
    return f"refuses to be connected to ({why})" + (f": ACL SETUSER {user} +{command[1]}" if command else "")
