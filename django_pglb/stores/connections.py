"""Redis connections that are held between two messages: taking one from redis-py's pool and returning it costs as much as using it."""

from __future__ import annotations

import inspect
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import SentinelConnectionPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .memory import Command

# Before 5.3, redis-py wants a command's name here, for nothing; from then on it warns of one.
_NAME = ("MGET",) if inspect.signature(ConnectionPool.get_connection).parameters["command_name"].default is inspect.Parameter.empty else ()


class HeldConnections:
    """Sends messages over connections of `pool`, to which they are in use all the time. Safe to use from any thread.

    1. A connection is held only while no answer is on its way. Whatever ends a message before that, be it a timeout or the end of a
       worker, ends the connection, too: the next message would be given the answer to this one, which is somebody else's pointer.
    2. One that its server has closed meanwhile is noticed by the message that it fails, which is then sent over another one. Every command
       of a store may run twice. What was not answered in time is not sent again.
    3. One to a master that the pool knows to be none any more goes back to the pool, which connects it anew.
    4. A forked child leaves its parent's alone.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        # Threads share nothing else, and each of its steps is one.
        self._idle: deque[Any] = deque()

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to `commands`, the server's errors among them. Raises redis-py's errors."""
        while (connection := self._pop()) is not None:
            if not self._pool.owns_connection(connection):
                self._pool.release(connection)
                continue
            try:
                return self._ask(connection, commands)
            except RedisConnectionError:
                continue
        connection = self._new()
        wait_in_kernel(getattr(connection, "_sock", None))
        return self._ask(connection, commands)

    def _new(self) -> Any:
        try:
            return self._pool.get_connection(*_NAME)
        except RedisConnectionError as error:
            if not is_starved(error):
                raise
        # The limit is for the site's cache. There is one connection here per thread that asks at the same time as others, at most.
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return connection

    def release(self) -> None:
        """Give the pool what is idle."""
        while (connection := self._pop()) is not None:
            self._pool.release(connection)

    def _ask(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        try:
            if len(commands) == 1:
                connection.send_packed_command(connection.pack_command(*commands[0]))
            else:
                connection.send_packed_command(connection.pack_commands(commands))
            answers = [_read(connection) for _ in commands]
        except BaseException as error:
            connection.disconnect()
            self._pool.release(connection)
            if isinstance(error.__context__, BlockingIOError):
                raise RedisTimeoutError("Timeout reading from socket, or writing to it") from error
            raise
        self._idle.append(connection)
        return answers

    def _pop(self) -> Any:
        """Return the connection that was used last; None if there is none."""
        try:
            while (connection := self._idle.pop()).pid != os.getpid():
                pass  # what is forgotten in a child closes its copy of the socket, and says nothing to the server
        except IndexError:
            return None
        return connection


def is_starved(error: Exception) -> bool:
    """Say whether a pool had no connection left: that says nothing of the server."""
    # redis-py has a class of its own for the first one only, and not always had.
    return isinstance(error, RedisConnectionError) and str(error).startswith(("Too many connections", "No connection available"))


def wait_in_kernel(opened: Any) -> None:
    """Have the kernel end what waits too long on a socket. Python would `poll()` before each call, and let another thread run each time.

    Between threads that have work to do, each of these costs as much as all of a message's own. Nothing changes for TLS, and where the
    client library keeps its socket elsewhere. https://man7.org/linux/man-pages/man7/socket.7.html, SO_RCVTIMEO
    """
    timeout = opened.gettimeout() if type(opened) is socket.socket else None
    if timeout:
        value = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        opened.settimeout(None)


def hold(client: Any) -> HeldConnections | None:
    """Return connections of the pool of `client`; None where that pool waits for one to be returned, or a class is the site's own."""
    # A pool that caches answers wants to know the keys of each command.
    if type(client) is not Redis or getattr(pool := client.connection_pool, "cache", None) is not None:
        return None
    return HeldConnections(pool) if type(pool) in {ConnectionPool, SentinelConnectionPool} else None


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
