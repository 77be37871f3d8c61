"""The same site with a 15-second cookie pin (django-multidb-router) instead of our package: what the checker must complain about."""

from __future__ import annotations

from .settings import *  # noqa: F403 - the same site, balanced by somebody else
from .settings import DATABASES, INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS.remove("django_pglb")
INSTALLED_APPS.remove("django_pglb.contrib.celery")
MIDDLEWARE[0] = "multidb.middleware.PinningRouterMiddleware"
DATABASE_ROUTERS = ["multidb.PinningReplicaRouter"]
REPLICA_DATABASES = ["replica1", "replica2"]
MULTIDB_PINNING_SECONDS = 15
for _database in DATABASES.values():
    _database["ENGINE"] = "django.db.backends.postgresql"
del PGLB  # noqa: F821 - from the star
