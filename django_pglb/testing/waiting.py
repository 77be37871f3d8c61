"""Waiting for a condition, with a deadline and a message that says what did not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

# Short against every event a cluster's test waits for, long enough not to steal the servers' CPU.
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], bool], *, timeout: float, what: str | Callable[[], str]) -> None:
    """Return as soon as `condition()` is true; raise `TimeoutError` saying `what` did not happen after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(POLL_SECONDS)
