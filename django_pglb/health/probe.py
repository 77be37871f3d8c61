"""One host's connection for probes, and the look through it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from ..core.probe import Failure, NotNow, Outcome
from .addresses import beginning_with
from .deadline import ended_in_time, is_readable, sever
from .question import FULL, PLAIN, Row, read
from .trouble import describe, is_cancelled_by_replay, is_unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .target import Target

    Connection = psycopg.AsyncConnection[TupleRow]

# Replay cancels even a trivial statement after a pause with a backlog, and a server that is being promoted changes its mind in between.
NOT_NOW = (errors.SerializationFailure, errors.DeadlockDetected, errors.ObjectNotInPrerequisiteState)

# So much of a probe's time may pass until names that do not resolve are left for the end.
LOOKUP_SHARE = 0.25

# How a server says that control data is not for this role, or that it has none.
NO_CONTROL_DATA = (errors.InsufficientPrivilege, errors.UndefinedFunction, errors.FeatureNotSupported)


class Link:
    """Looks at one host, through one connection that it keeps. Belongs to one event loop; one probe at a time.

    Never waits for a host beyond the deadline, also not to take leave of it.
    """

    def __init__(self, target: Target, timeout: float, clock: Callable[[], float]) -> None:
        self.target = target
        self._timeout = timeout
        self._clock = clock
        self._connection: Connection | None = None
        self._may_read_control_data = True
        self._asked_at = 0.0
        self._turn = 0
        self._task: asyncio.Task[Outcome] | None = None

    async def probe(self, seconds: float | None = None) -> Outcome:
        """Look at the host. Takes one round trip on a connection that is open, and never longer than `seconds` (default: the timeout)."""
        seconds = self._timeout if seconds is None else seconds
        started_at = self._clock()
        task = self._task = asyncio.create_task(self._look(started_at))
        if await ended_in_time(task, seconds, self._has_answer) and not task.cancelled():
            return task.result()
        if self._connection is None:
            self._turn += 1
        self.sever()
        return Failure(self._clock(), f"no answer within {self._timeout:g} s", is_unreachable=True)

    async def ask(self, statement: str, seconds: float) -> list[tuple[Any, ...]]:
        """Return what the host that has just been looked at answers, if it does within `seconds`. Once is enough: it may lose the host."""
        connection = self._connection
        if connection is None or seconds <= 0:
            return []
        try:
            async with asyncio.timeout(seconds):
                return await (await connection.execute(statement)).fetchall()
        except (psycopg.Error, TimeoutError):
            return []

    def sever(self) -> None:
        """Let go of the host at once, also in the middle of a probe."""
        task, self._task = self._task, None
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            sever(connection.pgconn)
        if task is not None and not task.done():
            self._end_without(task, connection)
        elif connection is not None:
            connection.pgconn.finish()

    def _end_without(self, task: asyncio.Task[Outcome], connection: Connection | None) -> None:
        if connection is None:
            task.cancel()  # still connecting: psycopg lets go of what it has
        else:
            task.add_done_callback(lambda _: connection.pgconn.finish())

    def _has_answer(self) -> bool:
        return self._connection is not None and not self._connection.closed and is_readable(self._connection.pgconn)

    async def _look(self, started_at: float) -> Outcome:
        try:
            row = await self._ask_persistently()
            at = self._clock()
            return read(row, started_at=started_at, at=at, latency_seconds=at - self._asked_at)
        except NOT_NOW:
            return NotNow(self._clock())
        except psycopg.OperationalError as error:
            cancelled = is_cancelled_by_replay(error)
            return NotNow(self._clock()) if cancelled else Failure(self._clock(), describe(error), is_unreachable(error))
        except Exception as error:  # noqa: BLE001 - a probe reports what is wrong, whatever it is
            return Failure(self._clock(), describe(error))

    async def _ask_persistently(self) -> Row:
        """Ask, and ask once more on a new connection if the one from before has broken: servers and firewalls end idle ones."""
        reused = self._connection
        try:
            return await self._ask(reused or await self._connect())
        except psycopg.OperationalError:
            if reused is None or not reused.closed or reused is not self._connection:
                raise
        return await self._ask(await self._connect())

    async def _connect(self) -> Connection:
        self._connection = None
        params = self.target.probe_params(self._timeout)
        if self._turn:
            params = await beginning_with(self._turn, params, self._timeout * LOOKUP_SHARE)
        connection = await psycopg.AsyncConnection.connect(make_conninfo(**params), autocommit=True, prepare_threshold=None)
        if asyncio.current_task() is not self._task:
            # Severed meanwhile. psycopg uses `asyncio.wait_for`, which may lose a cancellation before Python 3.12.
            connection.pgconn.finish()
            raise asyncio.CancelledError
        self._connection, self._may_read_control_data = connection, True
        return connection

    async def _ask(self, connection: Connection) -> Row:
        try:
            if self._may_read_control_data:
                try:
                    return await self._fetch(connection, FULL)
                except NO_CONTROL_DATA:
                    self._may_read_control_data = False
            return await self._fetch(connection, PLAIN)
        except psycopg.Error:
            if connection.closed:
                connection.pgconn.finish()
            raise

    async def _fetch(self, connection: Connection, statement: str) -> Row:
        self._asked_at = self._clock()
        cursor = await connection.execute(statement)
        row = await cursor.fetchone()
        if row is None:
            raise psycopg.DataError("a probe's statement returned no row")
        return Row(*row)
