"""A small site on one primary and two replicas; the fixture `site` fills in where the servers listen."""

from __future__ import annotations

from tests.background.libraries import BACKENDS

SECRET_KEY = "tests"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "rest_framework",
    "rest_framework.authtoken",
    "django.contrib.admin",
    "django_pglb",
    "django_pglb.contrib.celery",
    "django_pglb.contrib.tasks",
    "django_tasks_db",
    "tests.guestbook",
    "tests.corners",
]
MIDDLEWARE = [
    "django_pglb.middleware.LoadBalancingMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.guestbook.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]

_HOST = {"ENGINE": "django_pglb.backends.postgresql", "NAME": "site", "USER": "postgres", "HOST": "127.0.0.1"}
DATABASES = {
    "default": {**_HOST, "PORT": 1},
    "replica1": {**_HOST, "PORT": 2, "TEST": {"MIRROR": "default"}},
    "replica2": {**_HOST, "PORT": 3, "TEST": {"MIRROR": "default"}},
}
# The timeout is for tests that freeze a host to say: on a busy machine a healthy one may take a second to answer.
PGLB = {"default": {"REPLICAS": ["replica1", "replica2"], "CHECK_INTERVAL": 0.2, "CHECK_TIMEOUT": 10}}
# The same holds for Redis: tests of our own timeouts take these away.
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://127.0.0.1:1/0",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 10, "SOCKET_TIMEOUT": 10},
    }
}

PGLB["default"]["DEBUG_HEADER"] = True
TASKS = BACKENDS

USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
