"""Opens a routing session around each task, and lets a delayed one come again.

1. `task_prerun` and `task_postrun` are sent in the thread that runs the task, the latter in a `finally`; what Celery publishes for the
   task when it has ended (the next link of a chain, callbacks, a chord's body, a retry) is published in between.
2. Celery logs what a receiver of these raises, and runs the task all the same, so nothing can be refused there.
3. What `Task.before_start` raises is treated as if the task had raised it. Celery calls it where a class defines it, or where
   `celery.app.task.Task` has got another one than its own.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.task import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.signals import task_postrun, task_prerun
from django.core.exceptions import ImproperlyConfigured

from ...context import current_scope
from ...core.job import Consistency
from ...jobs import DELAY_SECONDS, consistency_of, job_session, should_come_again
from .publishing import CAME_AGAIN, POINTER

log = logging.getLogger("django_pglb.jobs")

# Where a task's request keeps the unit of work that was opened for it.
UNIT = "_pglb_unit"


def connect() -> None:
    task_prerun.connect(open_unit, dispatch_uid="django_pglb.open_unit")
    task_postrun.connect(close_unit, dispatch_uid="django_pglb.close_unit")
    # Before any task is bound to its app, or a worker has traced it.
    Task.before_start = before_start


def open_unit(task: Task, **_: object) -> None:
    text = getattr(task.request, POINTER, None)
    unit = job_session(text or None, _consistency(task, is_told=text is not None or current_scope().routing is not None))
    unit.__enter__()
    setattr(task.request, UNIT, unit)


def _consistency(task: Task, *, is_told: bool) -> Consistency:
    """Return how `task` reads. `is_told`: its message, or the unit of work that runs it eagerly, says what it must see.

    Else nobody knows: it was published by a process without this app, or is run eagerly by a script.
    """
    if not is_told or _may_have_run(task):
        return Consistency.ALWAYS
    try:
        return consistency_of(task)
    except ImproperlyConfigured:
        return Consistency.ALWAYS  # before_start says so


def close_unit(task: Task, **_: object) -> None:
    unit = vars(task.request).pop(UNIT, None)
    if unit is not None:
        unit.__exit__(None, None, None)


def before_start(task: Task, task_id: str, args: Any, kwargs: Any) -> None:
    """Refuse a task whose `db_consistency` is wrong, and put one back that no replica can answer yet."""
    request = task.request
    if consistency_of(task) is not Consistency.DELAYED or request.is_eager or getattr(request, CAME_AGAIN, False) or _may_have_run(task):
        return
    if should_come_again() and _publish_again(task):
        raise Ignore


def _may_have_run(task: Task) -> bool:
    """Say whether the broker has delivered this very message before, so that a try may have written what its pointer does not cover."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


def _publish_again(task: Task) -> bool:
    """Publish the task once more, as it came; say whether the broker has taken it."""
    headers = {**(task.request.headers or {}), CAME_AGAIN: True}
    signature = task.signature_from_request(countdown=DELAY_SECONDS, headers=headers)
    try:
        signature.apply_async()
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        log.exception("Task %s cannot be put back, and runs now instead", task.name)
        return False
    return True
