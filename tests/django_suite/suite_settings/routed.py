"""The whole package, with a unit of work open around each test and the mirror allowed in it, so that tests do read through it."""

from __future__ import annotations

from . import *  # noqa: F403 - settings are names in a module
from . import CLUSTERS, ROUTER, mirrored_databases

DATABASES = mirrored_databases("routed")
DATABASE_ROUTERS = [ROUTER]
PGLB = CLUSTERS
TEST_RUNNER = "suite_runner.RoutedRunner"
