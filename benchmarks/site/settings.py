"""The site's settings: Django's own, with what the contender named by BENCHMARK_CONTENDER puts into them.

Where the servers listen comes from the environment, too: BENCHMARK_PORTS (the primary's first), BENCHMARK_REDIS.
"""

from __future__ import annotations

import json
import os

from benchmarks.contenders import CONTENDERS

SECRET_KEY = "benchmarks"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.site.urls"
WSGI_APPLICATION = "benchmarks.site.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "benchmarks.site",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
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
_PORTS = os.environ["BENCHMARK_PORTS"].split(",")
_DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "site",
    "USER": "site",
    "HOST": "127.0.0.1",
    "CONN_MAX_AGE": None,
}
DATABASES = {
    alias: {**_DATABASE, "PORT": port}
    for alias, port in zip(["default", *(f"replica{number}" for number in range(1, len(_PORTS)))], _PORTS, strict=True)
}
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["BENCHMARK_REDIS"]}}
DATABASE_ROUTERS: list[str] = []
LOGGING_CONFIG = None

next(contender for contender in CONTENDERS if contender.name == os.environ["BENCHMARK_CONTENDER"]).configure(globals())

for _primary in globals().get("PGLB", {}).values():
    _primary.update(json.loads(os.environ.get("BENCHMARK_PGLB", "{}")))
