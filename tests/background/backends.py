"""A backend that stands for those of other packages: it sends JSON to a thread that knows nothing of whoever enqueued."""

from __future__ import annotations

import asyncio
import json
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any

from django.db import connections

from .libraries import INSTALLED

TIMEOUT_SECONDS = 120

# Each thread has a backend object of its own.
executor = ThreadPoolExecutor(1)
answers: dict[str, Future[Any]] = {}


class Thread:
    supports_async_task = True

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        self.validate_task(task)  # type: ignore[attr-defined]
        message = json.dumps({"args": args, "kwargs": kwargs})
        base = import_module(type(task).__module__)
        fields = dict.fromkeys(("enqueued_at", "started_at", "finished_at", "last_attempted_at"))
        fields |= {"status": base.TaskResultStatus.READY, "id": str(uuid.uuid4()), "errors": [], "worker_ids": []}
        result = base.TaskResult(task=task, args=args, kwargs=kwargs, backend=task.backend, **fields)
        answers[result.id] = executor.submit(run, task, base.TaskContext(task_result=result), message)
        return result


def run(task: Any, context: Any, message: str) -> Any:
    received = json.loads(message)
    args = ([context] if task.takes_context else []) + received["args"]
    try:
        if iscoroutinefunction(task.func):
            return asyncio.run(task.acall(*args, **received["kwargs"]))
        return task.call(*args, **received["kwargs"])
    finally:
        connections.close_all()


def answer(result_id: str) -> Any:
    """Return what the task returned. Raises what it raised."""
    return answers[result_id].result(TIMEOUT_SECONDS)


for _package, _name in INSTALLED.items():
    _base = import_module(f"{_package}.backends.base").BaseTaskBackend
    vars()[f"{_name}ThreadBackend"] = type(
        f"{_name}ThreadBackend", (Thread, import_module(f"{_package}.backends.base").BaseTaskBackend), {}
    )
