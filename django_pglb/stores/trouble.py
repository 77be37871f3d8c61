"""Whose an error is that is raised while one waits for a store or for a session.

It is theirs only if it comes from the operating system or from a client library. Anything else is somebody's who interrupts, as a task's
time limit does, or a mistake in the project, and goes on to whoever it is for.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.db import Error as DatabaseError
from redis.exceptions import RedisError

REDIS_ERRORS = (RedisError, OSError)


def is_trouble(error: Exception) -> bool:
    """Say whether `error` means that a cache, or what holds sessions, cannot answer."""
    return isinstance(error, (OSError, DatabaseError, RedisError)) or _package(type(error)) in _packages()


def _packages() -> set[str]:
    """Return the packages that hold this project's caches and sessions, and the client libraries of these."""
    backends = [caches[alias] for alias in settings.CACHES]
    # Django's caches on memcached keep their library there.
    libraries = [getattr(backend, "_lib", None) for backend in backends]
    names = {_package(type(backend)) for backend in backends} | {getattr(library, "__name__", "") for library in libraries}
    return names | {settings.SESSION_ENGINE.partition(".")[0]}


def _package(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]
