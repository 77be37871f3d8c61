"""What the tests enqueue. The tasks are those of the library that the database backend takes; tests make others of the same functions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django_pglb import current_decisions
from django_pglb.contrib.tasks import db_consistency

from ..guestbook.models import Entry
from .libraries import INSTALLED

task = import_module(next(iter(INSTALLED))).task


def on(package: str, kind: str, task: Any) -> Any:
    """Return a task of this package, on its backend of this kind, that does what `task` does."""
    return import_module(package).task(backend=f"{package} {kind}", takes_context=task.takes_context)(task.func)


def newest() -> dict[str, Any]:
    """The newest entry, and who served it, and why."""
    entry = Entry.objects.order_by("-pk").first()
    return {"text": entry and entry.text, "served": [[alias, reason] for alias, reason, _ in current_decisions()]}


@task(backend="database")
def look() -> dict[str, Any]:
    return newest()


@task(backend="database")
@db_consistency("sticky")
def look_sticky() -> dict[str, Any]:
    return newest()


@db_consistency("delayed")
@task(backend="database")
def look_delayed() -> dict[str, Any]:
    return newest()


@task(backend="database")
@db_consistency("sticky")
async def look_async() -> dict[str, Any]:
    entry = await Entry.objects.order_by("-pk").afirst()
    return {"text": entry and entry.text, "served": [[alias, reason] for alias, reason, _ in current_decisions()]}


@task(backend="database")
@db_consistency("sticky")
def write_and_look(text: str) -> dict[str, Any]:
    Entry.objects.create(text=text)
    return newest()


@task(backend="database", takes_context=True)
@db_consistency("sticky")
def echo(context: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": kwargs, "of context": context.task_result.kwargs}


@task(backend="database")
def enqueue_look(package: str) -> str:
    result_id: str = on(package, "thread", look_sticky).enqueue().id
    return result_id
