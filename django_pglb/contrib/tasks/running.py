"""Opens a routing session around each task."""

from __future__ import annotations

from typing import Any

from ...context import current_scope
from ...core.job import Consistency
from ...jobs import consistency_of, job_session
from .publishing import POINTER


def unit_of(task: Any, kwargs: dict[str, Any]) -> job_session:
    """Return the unit of work that `task` runs in, and take its pointer out of its arguments, in place.

    Without one and without a unit of work around it, nobody knows what the task must see, so it reads from the primary: it was enqueued
    before this app was installed, or past `Task.enqueue()`; or it is called directly, in a script.
    """
    text = kwargs.pop(POINTER, None)
    is_told = text is not None or current_scope().routing is not None
    return job_session(text or None, consistency_of(task.func) if is_told else Consistency.ALWAYS)
