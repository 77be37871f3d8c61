"""A Redis client of our own, made from the site's entry in `CACHES`: short timeouts, no retries, and connections of its own.

The site's own cache keeps its settings. In a forked child redis-py opens new connections by itself.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.utils.module_loading import import_string
from django_redis.pool import ConnectionFactory, SentinelConnectionFactory
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from .connections import hold, is_starved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connections import HeldConnections
    from .memory import Command

# A request waits so long for a store that has frozen, once; a Redis in the same network answers within a hundredth of it.
TIMEOUT_SECONDS = 0.15
TIMEOUTS = {"SOCKET_TIMEOUT": "socket_timeout", "SOCKET_CONNECT_TIMEOUT": "socket_connect_timeout"}


class WholeConnection:
    """Mixed into a connection of redis-py, which the pool keeps even if its handshake was interrupted.

    The next command on it would be given an answer to the handshake.
    """

    def connect(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().connect(*arguments, **options)  # type: ignore[misc]  # the connection's
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise


@cache
def whole(connection_class: type[Any]) -> type[Any]:
    """Return `connection_class` with a handshake that is completed, or was none."""
    return type(connection_class.__name__, (WholeConnection, connection_class), {})


class _OwnPools:
    """django-redis keeps one pool per address for the whole process: the site's, with the site's timeouts."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._own_pools: dict[str, Any] = {}
        super().__init__(options)  # type: ignore[call-arg]  # the factory's

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        # Two threads that come first at once make two, and both get the same one.
        url = params["url"]
        return self._own_pools.get(url) or self._own_pools.setdefault(url, self._new_pool(params))

    def _new_pool(self, params: dict[str, Any]) -> Any:
        pool = self.get_connection_pool(params)  # type: ignore[attr-defined]
        pool.connection_class = whole(pool.connection_class)
        return pool


class PrivateFactory(_OwnPools, ConnectionFactory):  # type: ignore[misc]  # not typed
    """Makes connections to one Redis."""


class PrivateSentinelFactory(_OwnPools, SentinelConnectionFactory):  # type: ignore[misc]  # not typed
    """Makes connections to whichever Redis the sentinels name."""


# Any other factory of a site makes clients that we know nothing of, as for Redis Cluster: those are taken as they are.
_PRIVATE = {
    "django_redis.pool.ConnectionFactory": f"{__name__}.PrivateFactory",
    "django_redis.pool.SentinelConnectionFactory": f"{__name__}.PrivateSentinelFactory",
}


class StoreClient:
    """Asks the Redis of the cache `alias`. Safe to use from any thread. Opens no connection before it is asked something.

    Whatever it raises is the client library's.
    """

    _held: HeldConnections | None = None

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._private = _private_client(alias)

    def __call__(self) -> Any:
        """Return a Redis client that may write."""
        client = self._private or caches[self._alias].client  # type: ignore[attr-defined]
        return client.get_client(write=True)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to `commands`, which are sent in one message; the server's errors are among them.

        Where a pool of the site's own has no connection left, one may be returned soon.
        """
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return self._ask(commands)
            except RedisConnectionError as error:
                if not is_starved(error) or time.monotonic() > give_up_at:
                    raise
            time.sleep(TIMEOUT_SECONDS / 30)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if held := self._held or self._hold():
            return held.ask(commands)
        pipeline = self().pipeline(transaction=False)
        for command in commands:
            # Not pipeline.eval(): redis-py blocks that name on a cluster, where the command itself works.
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))

    def info(self, section: str) -> Any:
        """Return what the server says of itself."""
        self._release()  # a pool may be allowed one connection only
        return self().info(section)

    @property
    def user(self) -> str:
        """The name that it signs in with, as far as that is known."""
        pool = getattr(self(), "connection_pool", None)
        return str(getattr(pool, "connection_kwargs", {}).get("username") or "default")

    @property
    def has_slots(self) -> bool:
        """Whether the client is one of a Redis Cluster."""
        return not self._held and isinstance(self(), RedisCluster)

    def drop_idle_connections(self) -> None:
        """Let the next command look the address up again: a server that was demoted answers, and refuses every write."""
        self._release()
        if self._private is not None:
            self().connection_pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Close every connection of ours."""
        if self._private is not None:
            self._private.do_close_clients()

    def _hold(self) -> HeldConnections | None:
        if self._private is not None and (held := hold(self())):
            # Two threads that come first at once make two, and both get the same one.
            self.__dict__.setdefault("_held", held)
        return self._held

    def _release(self) -> None:
        if self._held:
            self._held.release()


def open_client(alias: str) -> StoreClient | None:
    """Return a client for the cache `alias`; None if that is not on django-redis."""
    return StoreClient(alias) if hasattr(getattr(caches[alias], "client", None), "get_client") else None


def _private_client(alias: str) -> Any:
    """Return a client of django-redis for nobody but us; None where it would not be."""
    entry: dict[str, Any] = dict(settings.CACHES[alias])
    options: dict[str, Any] = dict(entry.get("OPTIONS") or {})
    default = getattr(settings, "DJANGO_REDIS_CONNECTION_FACTORY", "django_redis.pool.ConnectionFactory")
    factory = _PRIVATE.get(options.get("CONNECTION_FACTORY") or default)
    if factory is None:
        return None
    backend: Callable[[str, dict[str, Any]], Any] = import_string(entry.pop("BACKEND"))
    return backend(entry.pop("LOCATION", ""), {**entry, "OPTIONS": {**_own_options(options), "CONNECTION_FACTORY": factory}}).client


def _own_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return a cache's options with our timeouts where the site has set none, and without retries."""
    ours = {keyword: TIMEOUT_SECONDS for option, keyword in TIMEOUTS.items() if not options.get(option)}
    # The client library's retries multiply the time that a dead server costs; ours come from a thread that nobody waits for.
    once = {"retry": Retry(NoBackoff(), 0)}
    pool = {**ours, **_without_retries(options.get("CONNECTION_POOL_KWARGS")), **once}
    changed = {**options, "CONNECTION_POOL_KWARGS": pool}
    if "SENTINELS" in options:
        timeouts = {keyword: options.get(option) or pool[keyword] for option, keyword in TIMEOUTS.items()}
        changed["SENTINEL_KWARGS"] = {**timeouts, **_without_retries(options.get("SENTINEL_KWARGS")), **once}
    return changed


def _without_retries(arguments: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (arguments or {}).items() if not name.startswith("retry")}
