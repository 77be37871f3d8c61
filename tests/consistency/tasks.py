"""The tasks of the site look for what their publisher wrote, and note whether it was there."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import current_task

from django_pglb import current_decisions
from django_pglb.core.job import Consistency

from .jobs import app, broker
from .models import Token
from .wording import TASK_RUNS


def publish(level: str, token: str) -> None:
    """Start a task of this level that must find the token."""
    TASKS[level].delay(token)


def _find(token: str) -> None:
    found = Token.objects.filter(token=token).exists()
    decisions = current_decisions()
    run: dict[str, Any] = {
        "token": token,
        "level": current_task.db_consistency,
        "has_found": found,
        "hosts": [decision.alias for decision in decisions],
        "reasons": [decision.reason for decision in decisions],
        "came_again": bool(getattr(current_task.request, "pglb_came_again", False)),
        "redelivered": bool((current_task.request.delivery_info or {}).get("redelivered")),
        "worker": str(os.getpid()),
    }
    broker.rpush(TASK_RUNS, json.dumps(run))


TASKS = {level: app.task(_find, name=f"consistency.find_{level}", db_consistency=level) for level in Consistency}
