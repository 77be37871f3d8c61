"""The whole package over a mirrored replica, as in a user's project under test: app, middleware, router and `PGLB`."""

from __future__ import annotations

from . import *  # noqa: F403 - settings are names in a module
from . import CLUSTERS, ROUTER, mirrored_databases

DATABASES = mirrored_databases("mirrored")
DATABASE_ROUTERS = [ROUTER]
PGLB = CLUSTERS
TEST_RUNNER = "suite_runner.PackageRunner"
