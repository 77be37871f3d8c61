"""The example's site with registers to read and write. Where the servers listen, and what varies, comes from the environment."""

from __future__ import annotations

import json
import os

from example_project.settings import *  # noqa: F403 - the same site, elsewhere
from example_project.settings import DATABASES, INSTALLED_APPS, MIDDLEWARE, PGLB

INSTALLED_APPS += ["tests.served", "tests.consistency", "django_pglb.contrib.celery"]
MIDDLEWARE.insert(1, "tests.served.tell.tell")
MIDDLEWARE += ["tests.consistency.views.TellError"]
ROOT_URLCONF = "tests.consistency.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# All hosts by which the primary may be reached, as a site has them that survives a promotion.
_PORTS = os.environ["CONSISTENCY_PORTS"].split(",")
DATABASES["default"].update(
    HOST=",".join(["127.0.0.1"] * len(_PORTS)),
    PORT=",".join(_PORTS),
    OPTIONS={"target_session_attrs": "read-write", "connect_timeout": 2},
)
for _alias, _port in zip(("replica1", "replica2"), _PORTS[1:], strict=True):
    DATABASES[_alias].update(HOST="127.0.0.1", PORT=_port)
# No timeouts of the site's own: what the store does about a frozen Redis must not rest on them.
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["CONSISTENCY_REDIS"]}}

PGLB["default"]["CONSISTENCY"] = os.environ.get("CONSISTENCY_MODE", "read_your_writes")
PGLB["default"].update(json.loads(os.environ.get("CONSISTENCY_OPTIONS", "{}")))
