"""A replica's pool of connections (Django's option `"pool"`), which is not waited for when another host can answer."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from psycopg_pool import PoolTimeout, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long a reader waits before it looks again whether there is anything to wait for.
LOOK_SECONDS = 0.1

# What a pool keeps for those who come for it: how many may wait, and a mark for each who does.
MAX_WAITING = "_pglb_max_waiting"
WAITING = "_pglb_waiting"


class ReplicaPool:
    """Django's pool, which gives up as soon as a connection of one's own would: another host may be asked, if only the primary.

    1. psycopg's pool waits 30 s by default, whether all its connections are taken or the host is dead.
    2. It tries to connect again at ever longer intervals, for five minutes. A host that has come back would be waited for, or thought dead,
       all that time. With a short limit the pool forgets such attempts, and the next reader starts a new one.
    3. Its queue keeps whoever has given up until a connection comes, and counts them. With `max_waiting` nobody would be let in who could
       make that connection, so here only those who still wait count.
    """

    def __init__(self, pool: Any, *, within: float, refuse_if_out: Callable[[], None], may_forget: bool) -> None:
        """`within`: the seconds that connecting may take. `refuse_if_out` raises `HostIsOut`. `may_forget`: attempts, see 2."""
        self._pool = pool
        self._within = within
        self._refuse_if_out = refuse_if_out
        if may_forget:
            pool.reconnect_timeout = min(pool.reconnect_timeout, within)
        # In this order: of two threads the second one finds what the first one has left.
        self._max_waiting: int = vars(pool).setdefault(MAX_WAITING, pool.max_waiting)
        self._waiting: deque[None] = vars(pool).setdefault(WAITING, deque())  # append, pop and len are atomic: no lock
        pool.max_waiting = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    @property
    def waiting(self) -> int:
        """How many have found no connection ready and wait for one."""
        return len(self._waiting)

    def getconn(self, timeout: float | None = None) -> Any:
        """Return a connection.

        Raises `PoolTimeout` when there is none in time, or none to be had, `TooManyRequests` when no more may wait, `HostIsOut` when the
        host is out.
        """
        pool = self._pool
        longest = min(pool.timeout if timeout is None else timeout, self._within)
        deadline, failed_before = monotonic() + longest, self._failed_attempts()
        try:
            return pool.getconn(timeout=min(max(longest, 0.001), LOOK_SECONDS))
        except PoolTimeout:
            with self._being_one_who_waits():
                return self._wait(deadline, longest, failed_before)

    def _wait(self, deadline: float, longest: float, failed_before: int) -> Any:
        while (left := deadline - monotonic()) > 0:
            self._refuse_if_out()
            if self._failed_attempts() > failed_before:
                raise PoolTimeout("the pool cannot connect") from None
            try:
                return self._pool.getconn(timeout=min(left, LOOK_SECONDS))
            except PoolTimeout:
                continue
        raise PoolTimeout(f"couldn't get a connection after {longest:.2f} sec") from None

    @contextmanager
    def _being_one_who_waits(self) -> Iterator[None]:
        if self._max_waiting and self.waiting >= self._max_waiting:
            raise TooManyRequests(f"{self.waiting} wait for a connection already (max_waiting)") from None
        self._waiting.append(None)
        try:
            yield
        finally:
            self._waiting.pop()

    def _failed_attempts(self) -> int:
        failed: int = self._pool.get_stats().get("connections_errors", 0)
        return failed
