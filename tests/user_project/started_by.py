"""`manage.py`, with the way of starting processes first: `python -m tests.user_project.started_by spawn test …`."""

from __future__ import annotations

import multiprocessing
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    execute_from_command_line(sys.argv)
