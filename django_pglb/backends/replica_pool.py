"""A replica's pool of connections (Django's option `"pool"`), which is not waited for when another host can answer."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from psycopg_pool import PoolTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a reader waits before it looks again whether there is anything to wait for.
LOOK_SECONDS = 0.1


class ReplicaPool:
    """Django's pool, which gives up as soon as a connection of one's own would: another host may be asked, if only the primary.

    1. psycopg's pool waits 30 s by default, whether all its connections are taken or the host is dead.
    2. It tries to connect again at ever longer intervals, for five minutes. A host that has come back would be waited for, or thought dead,
       all that time. With a short limit the pool forgets such attempts, and the next reader starts a new one.
    """

    def __init__(self, pool: Any, *, within: float, refuse_if_out: Callable[[], None], may_forget: bool) -> None:
        """`within`: the seconds that connecting may take. `refuse_if_out` raises `HostIsOut`. `may_forget`: attempts, see 2."""
        self._pool = pool
        self._within = within
        self._refuse_if_out = refuse_if_out
        if may_forget:
            pool.reconnect_timeout = min(pool.reconnect_timeout, within)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def getconn(self, timeout: float | None = None) -> Any:
        """Return a connection. Raises `PoolTimeout` when there is none in time, or none to be had, `HostIsOut` when the host is out."""
        pool = self._pool
        longest = min(pool.timeout if timeout is None else timeout, self._within)
        deadline, failed_before = monotonic() + longest, self._failed_attempts()
        while True:
            left = deadline - monotonic()
            try:
                return pool.getconn(timeout=min(max(left, 0.001), LOOK_SECONDS))
            except PoolTimeout:
                if left <= LOOK_SECONDS:
                    raise PoolTimeout(f"couldn't get a connection after {longest:.2f} sec") from None
                self._refuse_if_out()
                if self._failed_attempts() > failed_before:
                    raise PoolTimeout("the pool cannot connect") from None

    def _failed_attempts(self) -> int:
        failed: int = self._pool.get_stats().get("connections_errors", 0)
        return failed
