"""Whose an error is that is raised while one waits for a store or for a session.

It is theirs only if it comes from the operating system or from a client library. Anything else is somebody's who interrupts, as a task's
time limit does, or a mistake in the project, and goes on to whoever it is for.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from redis.exceptions import RedisError

REDIS_ERRORS = (RedisError, OSError)
# Those of Django's own caches, which no setting names.
MEMCACHED_LIBRARIES = frozenset({"pymemcache", "pylibmc"})


def is_trouble(error: Exception) -> bool:
    """Say whether `error` means that a cache, or what holds sessions, cannot answer."""
    return isinstance(error, (OSError, DatabaseError, RedisError)) or _package(type(error)) in _packages()


def _packages() -> set[str]:
    """Return the packages that hold this project's caches and sessions, and the client libraries of these."""
    paths = [settings.SESSION_ENGINE, *(str(entry.get("BACKEND", "")) for entry in settings.CACHES.values())]
    return {path.partition(".")[0] for path in paths} | MEMCACHED_LIBRARIES


def _package(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]
