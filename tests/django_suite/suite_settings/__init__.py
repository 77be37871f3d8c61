"""Settings for runs of Django's own test suite: one module for each run, what they share here."""

from __future__ import annotations

import os
from typing import Any

STOCK = "django.db.backends.postgresql"
OURS = "django_pglb.backends.postgresql"
MIRROR = "replica1"
ROUTER = "django_pglb.routers.ReplicaRouter"


def databases(run: str, engine: str) -> dict[str, dict[str, Any]]:
    """Return the two databases that Django's suite wants, under names that no other run uses."""
    server = {"ENGINE": engine, "HOST": "127.0.0.1", "PORT": os.environ["PGLB_SUITE_PORT"], "USER": "postgres"}
    return {"default": {**server, "NAME": run}, "other": {**server, "NAME": f"{run}_other"}}


def mirrored_databases(run: str) -> dict[str, dict[str, Any]]:
    """Return the two databases and a mirror of the first, all on our engine."""
    found = databases(run, OURS)
    return {**found, MIRROR: {**found["default"], "TEST": {"MIRROR": "default"}}}


# The mirror needs no store, but the system checks want one that could do its work.
CLUSTERS = {"default": {"REPLICAS": [MIRROR], "STORE": {"BACKEND": "django_pglb.stores.CookieStore"}}}

# What Django's own runtests.py asks of settings, as in its test_sqlite.py.
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
