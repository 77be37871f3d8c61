"""When a deadline has passed, and when this process only slept through it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import psycopg
import pytest

from django_pglb.health.deadline import ended_in_time, is_readable, sever
from django_pglb.testing import Cluster


def judged(ends_after: float, limit: float, has_answer: Callable[[], bool] = lambda: False, sleeps: tuple[float, ...] = ()) -> bool:
    """Say what is thought of a task of `ends_after` seconds; `sleeps` are stretches in which the process cannot run, one after another."""

    async def run() -> bool:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(asyncio.sleep(ends_after))
        at = 0.0
        for seconds in sleeps:
            loop.call_later(at + 0.005, time.sleep, seconds)
            at += seconds + 0.005
        verdict = await ended_in_time(task, limit, has_answer)
        task.cancel()
        return verdict

    return asyncio.run(run())


@pytest.mark.parametrize(("ends_after", "verdict"), [(0, True), (0.05, True), (30, False)])
def test_deadline_holds_for_a_process_that_runs(ends_after: float, verdict: bool) -> None:
    """In time, or not."""
    assert judged(ends_after, 0.1) is verdict


def test_looks_on_schedule_are_needed_after_a_sleep() -> None:
    """Slept through again and again, the deadline is put off."""
    assert judged(0.5, 0.1, sleeps=(0.2, 0.15, 0.15))


def test_waiting_answer_puts_the_deadline_off() -> None:
    """Bytes that nobody has read yet may be the answer."""
    assert judged(0.3, 0.05, has_answer=lambda: True)


def test_deadline_is_not_put_off_for_ever() -> None:
    """A host that trickles bytes is given up, too."""
    assert not judged(60, 0.05, has_answer=lambda: True)


def test_severed_conversation_ends_at_once(cluster: Cluster) -> None:
    """The descriptor stays open, so its number cannot become somebody else's, and reads end."""
    with cluster.primary.connect() as connection:
        assert not is_readable(connection.pgconn)
        number = connection.pgconn.socket
        sever(connection.pgconn)
        assert is_readable(connection.pgconn)
        with socket.socket(fileno=number) as same:
            assert same.recv(1) == b""
            same.detach()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
