"""The tasks. Each answers what it found, which host served it, and why."""

from __future__ import annotations

import time
from typing import Any

from celery import current_task, shared_task
from celery.exceptions import Reject
from django.db import connections

from django_pglb import current_decisions, use_primary
from django_pglb.runtime import get_runtime
from tests.guestbook.models import Entry

DEADLINE_SECONDS = 60


def report(**more: Any) -> dict[str, Any]:
    """Return what this task did so far, for the test to judge."""
    request = current_task.request
    return {
        "decisions": [[alias, str(reason), count] for alias, reason, count in current_decisions()],
        "id": request.id,
        "retries": request.retries,
        "came_again": getattr(request, "pglb_came_again", False),
        "pointer": getattr(request, "pglb_pointer", None),
        "leaked": request.leaked,
        **more,
    }


def read(text: str) -> dict[str, Any]:
    return report(found=Entry.objects.filter(text=text).exists())


@shared_task
def unmarked(text: str) -> dict[str, Any]:
    return read(text)


@shared_task(db_consistency="always")
def always(text: str) -> dict[str, Any]:
    return read(text)


@shared_task(db_consistency="sticky")
def sticky(text: str) -> dict[str, Any]:
    return read(text)


@shared_task(db_consistency="delayed")
def delayed(text: str) -> dict[str, Any]:
    return read(text)


@shared_task(db_consistency="sticky")
def sticky_next(before: Any, text: str) -> dict[str, Any]:
    """The link of a chain, or the body of a chord: it gets what went before."""
    return {**read(text), "before": before}


@shared_task(db_consistency="sticky")
def write(text: str) -> dict[str, Any]:
    Entry.objects.create(text=text)
    return report()


@shared_task(db_consistency="sticky")
def wait_for(text: str) -> dict[str, Any]:
    """End, without having written, when somebody else has written `text` and the task that did it has ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    with use_primary():
        while not Entry.objects.filter(text=text).exists():
            assert time.monotonic() < deadline, f"nobody writes {text}"
            time.sleep(0.05)
    return report()


@shared_task(bind=True, db_consistency="sticky", max_retries=1)
def write_and_retry(self: Any, text: str) -> dict[str, Any]:
    """Write, and fail; the second try must find what the first one wrote."""
    if self.request.retries:
        return read(text)
    Entry.objects.create(text=text)
    raise self.retry(countdown=0)


@shared_task(bind=True, db_consistency="delayed", acks_late=True)
def write_and_give_back(self: Any, text: str) -> dict[str, Any]:
    """Write, and let the broker deliver the same message again, as it does when a worker has died."""
    if self.request.delivery_info["redelivered"]:
        return read(text)
    Entry.objects.create(text=text)
    raise Reject(requeue=True)


@shared_task(db_consistency="sticky")
def write_and_start(text: str) -> str:
    """Write, and start a task that must find it; answer that task's id."""
    Entry.objects.create(text=text)
    started: str = sticky.delay(text).id
    return started


@shared_task(db_consistency="sticky")
def fail() -> None:
    Entry.objects.exists()
    raise RuntimeError("as it should")


@shared_task(db_consistency="sticky", soft_time_limit=1)
def take_too_long() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_sleep(30)")


@shared_task
def look() -> dict[str, Any]:
    """Answer how this process sees the replicas: their states and positions."""
    replicas = get_runtime().topology("default").replicas
    return {host.alias: [host.state, host.replay_lsn or 0] for host in replicas}
