"""The site's settings as one contender needs them. Who that is, and where the servers listen, comes from the environment."""

from __future__ import annotations

from importlib import import_module

from .contenders import PLAIN_ENGINE, REPLICAS
from .environment import contender, servers

_contender, _servers = contender(), servers()

SECRET_KEY = "benchmarks"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "benchmarks.costs.site"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", *_contender.apps]
MIDDLEWARE = [
    *_contender.middleware,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASE_ROUTERS = list(_contender.routers[:1])


def _host(engine: str, alias: str) -> dict[str, object]:
    return {
        "ENGINE": engine,
        "NAME": _servers.database,
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": _servers.ports[alias],
        "CONN_MAX_AGE": None,
        "OPTIONS": {"application_name": _servers.application},
    }


DATABASES = {alias: _host(_contender.engine, alias) for alias in ("default", *REPLICAS)}
# Django's own engine on the same servers, beside the contender's.
DATABASES |= {f"plain_{alias}": _host(PLAIN_ENGINE, alias) for alias in ("default", "replica1")}
CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": _servers.redis}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

if _contender.defaults is not None:
    globals().update({name: value for name, value in vars(import_module(_contender.defaults)).items() if name.isupper()})
globals().update(_contender.settings)
