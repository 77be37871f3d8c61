"""Wraps what every backend enqueues and runs tasks by: four methods of `Task`, in Django 6 and in the backport.

1. Everything is enqueued by `Task.enqueue()` or `aenqueue()`, which hand the arguments to the backend, and run by `call()` or `acall()`,
   which get them from it, in whatever process that is. No other place of the framework sees both ends.
2. `Task.using()` copies, and backends may have a class of their own that inherits from `Task`, so the class is what is wrapped.
3. Both libraries may be there at once, as packages need the one or the other.
"""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from .publishing import prepared
from .running import unit_of

LIBRARIES: Final = ("django.tasks", "django_tasks")

# Marks a class of tasks whose methods are ours; others may wrap them, too.
WRAPPED: Final = "_pglb_wrapped"


def wrap_libraries() -> None:
    """Wrap the tasks of each library that is installed. Raises `ImproperlyConfigured` if none is."""
    installed = [library for library in LIBRARIES if find_spec(library) is not None]
    if not installed:
        raise ImproperlyConfigured("django_pglb.contrib.tasks needs Django 6, or the package django-tasks: install one of them.")
    for library in installed:
        wrap(import_module(f"{library}.base").Task)


def wrap(task_class: Any) -> None:
    """Let tasks of `task_class` carry the pointer of whoever enqueues them. Once: apps may be loaded again."""
    if hasattr(task_class, WRAPPED):
        return
    setattr(task_class, WRAPPED, True)
    for method in (_enqueue, _aenqueue, _call, _acall):
        name = method.__name__.removeprefix("_")
        setattr(task_class, name, method(getattr(task_class, name)))


# The arguments are the task's own, and may have any name.


def _enqueue(plain: Any) -> Any:
    @functools.wraps(plain)
    def enqueue(task: Any, /, *args: Any, **kwargs: Any) -> Any:
        task, kwargs = prepared(task, kwargs)
        return plain(task, *args, **kwargs)

    return enqueue


def _aenqueue(plain: Any) -> Any:
    @functools.wraps(plain)
    async def aenqueue(task: Any, /, *args: Any, **kwargs: Any) -> Any:
        # In the thread that owns the connections, where the primary may be asked.
        task, kwargs = await sync_to_async(prepared)(task, kwargs)
        return await plain(task, *args, **kwargs)

    return aenqueue


def _call(plain: Any) -> Any:
    @functools.wraps(plain)
    def call(task: Any, /, *args: Any, **kwargs: Any) -> Any:
        with unit_of(task, kwargs):
            return plain(task, *args, **kwargs)

    return call


def _acall(plain: Any) -> Any:
    @functools.wraps(plain)
    async def acall(task: Any, /, *args: Any, **kwargs: Any) -> Any:
        async with unit_of(task, kwargs):
            return await plain(task, *args, **kwargs)

    return acall
