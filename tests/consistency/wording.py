"""Words that the site and those who judge it have in common."""

from __future__ import annotations

# Ends the name of what an `on_commit` hook writes beside the write that it hangs on.
HOOK = ".hook"

# Begins an error that came after rows had been given to the view.
ROWS_DELIVERED = "(rows had been delivered)"

# Where a worker notes that it takes tasks, and what each run of a task has found.
READY_WORKERS = "ready-workers"
TASK_RUNS = "task-runs"
