"""Finds tasks with a level that is none, before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from ...core.problem import CheckId
from ...jobs import consistency_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig


def connect() -> None:
    checks.register(check_tasks, "django_pglb")


def check_tasks(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Return an error for each task of the current Celery app whose `db_consistency` is wrong."""
    if not (current_app.autofinalize or current_app.finalized):
        return []  # its tasks are not complete, and may not be asked for
    return [error for task in current_app.tasks.values() for error in _errors(task)]


def _errors(task: object) -> list[checks.CheckMessage]:
    if getattr(task, "db_consistency", None) is None:
        return []
    try:
        consistency_of(task)
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id=f"django_pglb.{CheckId.NO_TASK_LEVEL}")]
    return []
