"""The schedule of a beat process: one task, every second, always under the same id, which the test knows."""

from __future__ import annotations

from .app import app

OPTIONS = {"queue": "threads", "task_id": "of-beat"}

app.conf.beat_schedule = {"read": {"task": "tests.jobs.tasks.sticky", "schedule": 1.0, "args": ("nothing",), "options": OPTIONS}}
app.conf.beat_max_loop_interval = 1
