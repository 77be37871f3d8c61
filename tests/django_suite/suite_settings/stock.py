"""The reference: Django's own engine."""

from __future__ import annotations

from . import *  # noqa: F403 - settings are names in a module
from . import STOCK, databases

DATABASES = databases("stock", STOCK)
TEST_RUNNER = "suite_runner.RecordingRunner"
