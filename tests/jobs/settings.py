"""The test site as a worker process sees it: where its servers listen comes from the environment."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403 - the same site, elsewhere
from tests.settings import CACHES, DATABASES, PGLB

for _alias, _port in zip(("default", "replica1", "replica2"), os.environ["JOBS_PORTS"].split(), strict=True):
    DATABASES[_alias]["PORT"] = int(_port)
CACHES["default"]["LOCATION"] = os.environ["JOBS_REDIS"]

# On a busy machine a test may take longer than replicas may lag, and those are paused meanwhile.
PGLB["default"]["MAX_LAG_SECONDS"] = 600
