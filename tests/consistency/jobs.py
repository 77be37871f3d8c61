"""The Celery app of the site, and what its workers note."""

from __future__ import annotations

import os
import signal

import redis
from celery import Celery
from celery.signals import worker_init, worker_ready

from tests.served.orphan import end_with_parent

from .wording import READY_WORKERS

BROKER = os.environ["CONSISTENCY_BROKER"]
# A worker that was killed holds what it had taken for so long; longer than what `delayed` waits, or that would be delivered twice.
VISIBILITY_SECONDS = 4

app = Celery("consistency", broker=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    # By default the transport looks every 100 s only for what is visible again.
    broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
    imports=["tests.consistency.tasks"],
    task_acks_late=True,
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=1,
)
broker = redis.Redis.from_url(BROKER)


@worker_init.connect
def be_gone_with_the_run(**_: object) -> None:
    end_with_parent(signal.SIGKILL)


@worker_ready.connect
def note_ready(**_: object) -> None:
    broker.sadd(READY_WORKERS, os.getpid())
