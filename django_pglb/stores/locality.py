"""Whether the servers of a site may each have a Redis of their own: then they miss what users wrote by way of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL = (
    "This Redis is on the application's own machine, and the database is on another one: if several machines run this site, each has a"
    " Redis of its own, and misses what users wrote by way of the others. Give all the same one."
)

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def is_of_one_machine(cache: Mapping[str, object], database: Mapping[str, object]) -> bool:
    """Say whether `cache` (an entry of `CACHES`) is on this machine and `database` (an entry of `DATABASES`) is on another."""
    if "SENTINELS" in (_mapping(cache.get("OPTIONS")) or {}):
        return False
    location, host = cache.get("LOCATION"), str(database.get("HOST") or "/")
    locations = location.split(",") if isinstance(location, str) else location if isinstance(location, list | tuple) else ()
    is_remote = not host.startswith(("/", "@")) and host not in _THIS_MACHINE
    return is_remote and any(_is_local(str(each)) for each in locations)


def _is_local(url: str) -> bool:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return False
    return parts.scheme == "unix" or parts.hostname in _THIS_MACHINE


def _mapping(value: object) -> Mapping[object, object] | None:
    return value if isinstance(value, dict) else None
