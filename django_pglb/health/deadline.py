"""Deadlines that a starved process does not hold against others."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn

# The loop is told to wake at a moment. If it wakes this much later, the process was starved, and answers may be waiting for it.
TOLERATED_LATENESS_SECONDS = 0.05

# An answer that has arrived takes a few turns of the loop until the waiting task has ended.
GRACE_SECONDS = 0.02

# So often may a deadline be put off. A process that is starved for longer has nothing left to ask with.
MAX_LOOKS = 50


async def ended_in_time(task: asyncio.Task[Any], seconds: float, has_answer: Callable[[], bool]) -> bool:
    """Say whether `task` has ended within `seconds`, as far as this process can tell.

    It counts as late only after two looks on schedule, a little apart, with no answer waiting to be read.
    The task is left running if it has not ended.
    """
    looks_on_schedule = 0
    for _ in range(MAX_LOOKS):
        on_schedule = await _wait(task, seconds)
        if task.done():
            return True
        looks_on_schedule = looks_on_schedule + 1 if on_schedule and not has_answer() else 0
        if looks_on_schedule == 2:
            return False
        seconds = GRACE_SECONDS
    return False


async def _wait(task: asyncio.Task[Any], seconds: float) -> bool:
    """Wait for `task`; say whether the loop woke on schedule."""
    loop = asyncio.get_running_loop()
    wanted = loop.time() + seconds
    await asyncio.wait({task}, timeout=seconds)
    return loop.time() - wanted <= TOLERATED_LATENESS_SECONDS


def is_readable(pgconn: PGconn) -> bool:
    """Say whether bytes from the server wait to be read."""
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN)
    return any(event & select.POLLIN for _, event in poller.poll(0))


def sever(pgconn: PGconn) -> None:
    """End the conversation with the server at once; whoever waits for it in this loop gets an error.

    Cancelling the task instead would make psycopg ask the server, which does not answer, to cancel the statement.
    Closing would free the descriptor's number while the loop still watches it.
    """
    borrowed = socket.socket(fileno=pgconn.socket)
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker
    finally:
        borrowed.detach()
