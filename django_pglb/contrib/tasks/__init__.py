"""Tasks of Django's task framework see what whoever enqueued them wrote. Add `"django_pglb.contrib.tasks"` to `INSTALLED_APPS`.

How a task reads is said per task, by the decorator `@db_consistency("sticky")`, or for all by `PGLB_TASK_CONSISTENCY`.
"""

from __future__ import annotations

from .level import db_consistency

__all__ = ["db_consistency"]
