"""Settings of the example site. Where the hosts listen comes from the environment, so that they serve any cluster."""

from __future__ import annotations

import os
from typing import Any

# Of no value: whoever can reach the site may see its two passwords on its front page.
SECRET_KEY = os.environ.get("GUESTBOOK_SECRET_KEY", "the guestbook is a demonstration")
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_pglb",
    "example_project.guestbook",
]

MIDDLEWARE = [
    "django_pglb.middleware.LoadBalancingMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# True where the addresses below are those of transaction-pooling PgBouncers.
POOLED = os.environ.get("GUESTBOOK_POOLED", "0") == "1"


def database(variable: str, **more: Any) -> dict[str, Any]:
    """Return the entry of the host whose address (`name:port`) the environment variable holds."""
    host, _, port = os.environ.get(variable, "127.0.0.1:5432").rpartition(":")
    return {
        "ENGINE": "django_pglb.backends.postgresql",
        "HOST": host,
        "PORT": port,
        "NAME": "guestbook",
        "USER": "guestbook",
        "PASSWORD": os.environ.get("GUESTBOOK_PASSWORD", ""),
        "CONN_MAX_AGE": 60,
        # A write cannot be tried twice. A replica's connections are replaced by themselves, and may be checked all the same.
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": POOLED,
        **more,
    }


DATABASES = {
    "default": database("GUESTBOOK_PRIMARY"),
    "replica1": database("GUESTBOOK_REPLICA1", TEST={"MIRROR": "default"}),
    "replica2": database("GUESTBOOK_REPLICA2", TEST={"MIRROR": "default"}),
}
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]

PGLB = {
    "default": {
        "REPLICAS": {"replica1": {"POOLED": POOLED}, "replica2": {"POOLED": POOLED}},
        # To show which host answered is what this site is for. Yours should not.
        "DEBUG_HEADER": True,
    }
}
PGLB_ENABLED = os.environ.get("PGLB_ENABLED", "1") == "1"

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ.get("GUESTBOOK_REDIS", "redis://127.0.0.1:6379/0"),
    }
}

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# Two of these sites on one machine must not sign each other's visitors out.
SESSION_COOKIE_NAME = "guestbook_session"
# In the session a message would be one more write.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Where the start command listens to the buttons that break the cluster; without it there are no buttons.
GUESTBOOK_CONTROL = os.environ.get("GUESTBOOK_CONTROL", "")
