"""Puts the pointer of whoever publishes a task into the headers of its message."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import before_task_publish

from ...jobs import NOTHING, UNKNOWN, has_replicas, text_for_job

if TYPE_CHECKING:
    from collections.abc import MutableMapping

log = logging.getLogger("django_pglb.jobs")

# Names of message headers, which become attributes of `task.request`.
POINTER: Final = "pglb_pointer"
CAME_AGAIN: Final = "pglb_came_again"


def connect() -> None:
    before_task_publish.connect(attach_pointer, dispatch_uid="django_pglb.attach_pointer")


def attach_pointer(headers: MutableMapping[str, Any] | None = None, **_: object) -> None:
    """Write the pointer into `headers`, in place. Never raises: Celery would log it and publish a task that is bound by nothing."""
    if headers is None:
        return
    # A retry hands on the headers of the message that it came by.
    headers.pop(POINTER, None)
    try:
        text = text_for_job(after_others=_follows_a_chord())
        if text is None and has_replicas():
            text = NOTHING
    except SoftTimeLimitExceeded:
        raise  # of the task that publishes this one
    except Exception:
        log.exception("No pointer could be taken for a task, which reads from the primary therefore")
        text = UNKNOWN
    if text is not None:
        headers[POINTER] = text


def _follows_a_chord() -> bool:
    """Say whether what is published here may be the body of a chord.

    The part that ends last publishes it, or a task of Celery's own that watches over them; it must see what every part wrote.
    """
    task = current_task
    return bool(task) and (bool(task.request.chord) or task.name == "celery.chord_unlock")
