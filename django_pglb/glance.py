"""A glance at rows that nobody is shown: only what cannot grow old is taken from them, such as whose a session is, and the rest is let go.

Where reads must be monotonic, a glance need not be remembered as seen, and so binds nothing to the replica that answered it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Glance:
    """What was read while it lasted."""

    def __init__(self) -> None:
        self.saw_something = False
        """Whether a read was not remembered for its sake. Whoever glances must let go of what it brought."""


_glance: ContextVar[Glance | None] = ContextVar("django_pglb_glance", default=None)

current_glance = _glance.get


@contextmanager
def glancing() -> Iterator[Glance]:
    """Let the reads in this block be part of a glance."""
    glance = Glance()
    token = _glance.set(glance)
    try:
        yield glance
    finally:
        _glance.reset(token)
