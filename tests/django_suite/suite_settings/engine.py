"""Our engine and nothing else: no `PGLB`, no router."""

from __future__ import annotations

from . import *  # noqa: F403 - settings are names in a module
from . import OURS, databases

DATABASES = databases("engine", OURS)
TEST_RUNNER = "suite_runner.RecordingRunner"
