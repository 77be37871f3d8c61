"""The reference for `routed`: Django's own engine, and test cases that commit what they write."""

from __future__ import annotations

from . import *  # noqa: F403 - settings are names in a module
from . import STOCK, databases

DATABASES = databases("committed", STOCK)
TEST_RUNNER = "suite_runner.CommittingRunner"
