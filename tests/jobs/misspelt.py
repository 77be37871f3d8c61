"""A task with a level that is none. Only workers import it: every system check would complain of it."""

from __future__ import annotations

from celery import shared_task


@shared_task(db_consistency="stiky")
def misspelt() -> None:
    """Never run."""
