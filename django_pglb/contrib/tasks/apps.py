"""The Django application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig

from .seams import wrap_libraries

if TYPE_CHECKING:
    from types import ModuleType


class TasksConfig(AppConfig):
    name = "django_pglb.contrib.tasks"
    # "tasks" alone is likely to be taken.
    label = "django_pglb_tasks"
    verbose_name = "PostgreSQL load balancing for Django's tasks"

    def __init__(self, app_name: str, app_module: ModuleType) -> None:
        super().__init__(app_name, app_module)
        # Not in ready(): modules of models may import tasks, and backends may keep the method that runs one, as soon as there is one.
        wrap_libraries()
