"""What such a project has: one database server for its tests, replicas that exist in production only."""

from __future__ import annotations

import os
from importlib.util import find_spec

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
    "django_pglb.middleware.LoadBalancingMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "tests.user_project.urls"
STATIC_URL = "static/"
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]
_HOST = {
    "ENGINE": "django_pglb.backends.postgresql",
    "NAME": "user_project",
    "USER": "postgres",
    "HOST": "127.0.0.1",
    "OPTIONS": {"pool": True} if os.environ.get("USER_PROJECT_POOL") else {},
}
DATABASES = {
    "default": {**_HOST, "PORT": os.environ.get("USER_PROJECT_PORT", "1")},
    "replica": {**_HOST, "PORT": "1", "TEST": {"MIRROR": "default"}},
}
PGLB = {"default": {"REPLICAS": ["replica"], "GUARD_STALE_SAVES": "raise"}}
# Nothing listens there: tests need no Redis either.
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
TASKS_PACKAGE = "django.tasks" if find_spec("django.tasks") else "django_tasks"
TASKS = {"default": {"BACKEND": f"{TASKS_PACKAGE}.backends.dummy.DummyBackend"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
