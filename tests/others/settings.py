"""The project of one journey: `OTHERS_JOURNEY` names it, `OTHERS_MODE` says on which engine, `OTHERS_SERVERS` where servers listen."""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

NAME, MODE = os.environ["OTHERS_JOURNEY"], os.environ["OTHERS_MODE"]
SERVERS = json.loads(os.environ["OTHERS_SERVERS"])
journey: Any = import_module(f"tests.others.journeys.{NAME}")
IS_OURS = MODE != "plain"

SECRET_KEY = "others"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
STATIC_URL = "static/"
SITE_ID = 1
MEDIA_ROOT = os.environ["OTHERS_FOLDER"]
MIGRATION_MODULES = {"place": "place_migrations"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.others.place.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
_CONTEXT = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES: list[dict[str, Any]] = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {"context_processors": _CONTEXT}}
]
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{SERVERS['redis']}/0"}}
_HOST = {"NAME": f"{NAME}_{MODE}", "USER": "postgres", "HOST": "127.0.0.1"}
ENGINE = "django_pglb.backends.postgresql" if IS_OURS else "django.db.backends.postgresql"
DATABASES = {"default": {**_HOST, "ENGINE": ENGINE, "PORT": SERVERS["primary"]}}

INSTALLED_APPS += [app for app in getattr(journey, "APPS", ()) if app not in INSTALLED_APPS] + ["tests.others.place"]
MIDDLEWARE = [*getattr(journey, "MIDDLEWARE_ABOVE", ()), *MIDDLEWARE, *getattr(journey, "MIDDLEWARE", ())]
_CONTEXT += getattr(journey, "CONTEXT_PROCESSORS", ())
globals().update(getattr(journey, "SETTINGS", {}))

if IS_OURS:
    INSTALLED_APPS.append("django_pglb")
    MIDDLEWARE.insert(0, "django_pglb.middleware.LoadBalancingMiddleware")
    DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]
    for _number, _port in enumerate(SERVERS["replicas"], 1):
        DATABASES[f"replica{_number}"] = {**_HOST, "ENGINE": ENGINE, "PORT": _port, "TEST": {"MIRROR": "default"}}
    PGLB = {"default": {"REPLICAS": [alias for alias in DATABASES if alias != "default"], "CHECK_INTERVAL": 0.2, "CHECK_TIMEOUT": 10}}
    if MODE == "ours" and hasattr(journey, "remedy"):
        journey.remedy(globals())
