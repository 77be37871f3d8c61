"""What must be in force at a point of a program, by the rules of the documentation alone: no context variable is asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from django_pglb.context import current_scope
from django_pglb.core.policy import Scope
from django_pglb.core.routing_session import RoutingSession

from .program import Change


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What is in force within one block. Two blocks are never the same one."""

    routing: RoutingSession | None = None
    forced: Literal["primary", "replicas"] | None = None
    ignore_writes: bool = False
    replica_reads: bool = False
    outer: Frame | None = None

    def is_within(self, other: Frame) -> bool:
        frame: Frame | None = self
        while frame is not None and frame is not other:
            frame = frame.outer
        return frame is other


class Here:
    """One context of execution: a thread's, a task's. It is handed on explicitly by whoever runs a program."""

    def __init__(self, frame: Frame | None = None, *, may_cross: bool = True, hangs: asyncio.Event | None = None) -> None:
        self.frame = frame or Frame()
        self.may_cross = may_cross
        """Whether sync code may call async code; it would wait for itself where a thread has got another one's context."""
        self.hangs = hangs
        """What is set before it waits to be cancelled; None: nobody will."""

    def copy(self, *, may_cross: bool = True, hangs: asyncio.Event | None = None) -> Here:
        return Here(self.frame, may_cross=may_cross and self.may_cross, hangs=hangs)

    def enter(self, change: Change, *, is_task: bool = False) -> Frame:
        """A block has begun here, or an eager task. Checks what is in force now."""
        self.frame = self._changed(change, current_scope().routing, is_task=is_task)
        self.look(f"after entering {change}")
        return self.frame

    def enter_request(self, routing: RoutingSession) -> Frame:
        """The view of a request has begun here."""
        self.frame = Frame(routing, outer=self.frame)
        self.look("in a request")
        return self.frame

    def leave(self, *frames: Frame) -> None:
        """Blocks have ended, here or where they were suspended: what was in force before them is so again, if they were in force here."""
        for frame in reversed(frames):
            if self.frame.is_within(frame):
                assert frame.outer is not None
                self.frame = frame.outer

    def look(self, when: str) -> None:
        """Compare what is in force with what must be."""
        scope, frame = current_scope(), self.frame
        found = (scope.forced, scope.ignore_writes, scope.replica_reads)
        expected = (frame.forced, frame.ignore_writes, frame.replica_reads)
        assert found == expected, f"in force {when}: {found}, not {expected}"
        assert scope.routing is frame.routing, f"another unit of work is open {when}"

    def _changed(self, change: Change, found: RoutingSession | None, *, is_task: bool) -> Frame:
        before = self.frame
        is_new = change.startswith("routing_session") or change.endswith("job") or (before.routing is None and change != "ignore_writes")
        routing = self._new(found) if is_new else before.routing
        if change.endswith("job"):  # what is in force where it is run eagerly does not hold in it
            # A task of nobody's unit of work cannot know what it must see.
            is_forced = change == "always job" or (is_task and before.routing is None)
            return Frame(routing, forced="primary" if is_forced else None, outer=before)
        return Frame(
            routing,
            forced={"use_primary": "primary", "use_replicas": "replicas"}.get(change, before.forced),  # type: ignore[arg-type]
            ignore_writes=before.ignore_writes or change == "ignore_writes",
            replica_reads=before.replica_reads or change == "replica_reads",
            outer=before,
        )

    def _new(self, found: RoutingSession | None) -> RoutingSession:
        assert found is not None, "no unit of work was opened"
        frame: Frame | None = self.frame
        while frame is not None:
            assert frame.routing is not found, "no unit of work of its own was opened"
            frame = frame.outer
        return found


def is_clean() -> bool:
    """Say whether nothing is in force in this context: no unit of work and no override."""
    return current_scope() == Scope()
