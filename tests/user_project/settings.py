"""What such a project has: one database server for its tests, replicas that exist in production only.

With `USER_PROJECT_NAIVE` it reads from the replica and writes to the primary, on Django's own engine, for comparison. Django makes a mirror
of a replica's name only, so that its server must be there then.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

IS_NAIVE = bool(os.environ.get("USER_PROJECT_NAIVE"))

SECRET_KEY = "user"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django_pglb",
    "django_pglb.contrib.tasks",
    "tests.user_project.notes",
]
MIDDLEWARE = [
    *([] if IS_NAIVE else ["django_pglb.middleware.LoadBalancingMiddleware"]),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "tests.user_project.urls"
STATIC_URL = "static/"
DATABASE_ROUTERS = ["tests.user_project.naive.NaiveRouter" if IS_NAIVE else "django_pglb.routers.ReplicaRouter"]
_HOST = {
    "ENGINE": "django.db.backends.postgresql" if IS_NAIVE else "django_pglb.backends.postgresql",
    "NAME": "user_project",
    "USER": "postgres",
    "HOST": "127.0.0.1",
    "OPTIONS": {"pool": True} if os.environ.get("USER_PROJECT_POOL") else {},
}
DATABASES = {
    "default": {**_HOST, "PORT": os.environ.get("USER_PROJECT_PORT", "1")},
    "replica": {
        **_HOST,
        "PORT": os.environ.get("USER_PROJECT_PORT" if IS_NAIVE else "USER_PROJECT_REPLICA_PORT", "1"),
        "TEST": {"MIRROR": "default"},
    },
    # A role of few rights in the same database. It belongs to no cluster.
    "limited": {
        **_HOST,
        "PORT": os.environ.get("USER_PROJECT_PORT", "1"),
        "USER": "plain",
        "OPTIONS": {"application_name": "limited"},
    },
}
PGLB = {} if IS_NAIVE else {"default": {"REPLICAS": ["replica"], "GUARD_STALE_SAVES": "raise"}}
# Nothing listens there: tests need no Redis either.
CACHE = os.environ.get("USER_PROJECT_CACHE") or "django_redis.cache.RedisCache"
CACHES = {"default": {"BACKEND": CACHE, "LOCATION": "redis://127.0.0.1:1/0"}}
TASKS_PACKAGE = "django.tasks" if find_spec("django.tasks") else "django_tasks"
TASKS = {"default": {"BACKEND": f"{TASKS_PACKAGE}.backends.dummy.DummyBackend"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
