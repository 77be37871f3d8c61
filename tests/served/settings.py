"""The test site as a web server runs it: where its servers listen, and what a control run switches off, comes from the environment."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403 - the same site, elsewhere
from tests.settings import CACHES, DATABASES, INSTALLED_APPS, MIDDLEWARE, PGLB

INSTALLED_APPS += ["tests.served"]
MIDDLEWARE.insert(1, "tests.served.tell.tell")
ROOT_URLCONF = "tests.served.urls"
WSGI_APPLICATION = "tests.served.wsgi.application"

for _alias, _variable in {"default": "SERVED_PRIMARY", "replica1": "SERVED_REPLICA1", "replica2": "SERVED_REPLICA2"}.items():
    DATABASES[_alias].update(PORT=int(os.environ[_variable]), CONN_MAX_AGE=60)
    if "SERVED_POOL" in os.environ:
        # Under ASGI each request has a thread of its own, and what it leaves open nobody uses again.
        DATABASES[_alias].update(CONN_MAX_AGE=0, OPTIONS={"pool": {"min_size": 1, "max_size": 24, "timeout": 30}})
CACHES["default"]["LOCATION"] = os.environ["SERVED_REDIS"]

# The interval that sites have: with a shorter one a topology would be fresher than in life.
del PGLB["default"]["CHECK_INTERVAL"]
PGLB["default"]["CONSISTENCY"] = os.environ.get("SERVED_CONSISTENCY", "read_your_writes")
DATABASE_ROUTERS = os.environ.get("SERVED_ROUTER", "django_pglb.routers.ReplicaRouter").split()
