"""The Celery app. In a test its broker is set by a fixture, in a worker process by the environment."""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery
from celery.signals import before_task_publish, task_prerun, worker_init

from django_pglb.context import current_scope
from django_pglb.contrib.celery import running
from django_pglb.contrib.celery.publishing import CAME_AGAIN
from tests.served.orphan import end_with_parent

BROKER = os.environ.get("JOBS_BROKER", "")
# Where a worker notes the ids of tasks that it has put back.
PUT_BACK = "put-back"

app = Celery("jobs", broker=BROKER or None, backend=BROKER or None)
app.conf.update(
    task_default_queue="prefork",
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 60},
    result_expires=600,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    imports=["tests.jobs.tasks"],
)


@task_prerun.connect
def note_leak(task: Any, **_: object) -> None:
    """Note whether a unit of work of an earlier task is still open here. Connected before ours, so asked before ours opens one."""
    task.request.leaked = current_scope().routing is not None


if BROKER:
    app.conf.imports = ["tests.jobs.tasks", "tests.jobs.misspelt"]
    # So that a test can resume replay in between, on any machine.
    running.DELAY_SECONDS = int(os.environ["JOBS_DELAY_SECONDS"])

    @worker_init.connect
    def be_gone_with_the_run(**_: object) -> None:
        end_with_parent()

    @before_task_publish.connect
    def note_put_back(headers: dict[str, Any], **_: object) -> None:
        if headers.get(CAME_AGAIN):
            with redis.Redis.from_url(BROKER) as client:
                client.rpush(PUT_BACK, headers["id"])
