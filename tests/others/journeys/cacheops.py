"""django-cacheops: the same as with cachalot, with its own ways to invalidate."""

from __future__ import annotations

from typing import Any

from tests.others.settings import SERVERS

from .cachalot import STEPS, models, urls

PACKAGE = "django-cacheops"
APPS = ["cacheops"]
SETTINGS = {"CACHEOPS_REDIS": f"{SERVERS['redis']}/1", "CACHEOPS": {"place.*": {"ops": "all", "timeout": 600}}}
CHECK = "django_pglb.W029"
# By what it needs.
IS_READ_FROM_PRIMARY = True

__all__ = ["STEPS", "models", "urls"]


def remedy(settings: dict[str, Any]) -> None:
    settings["DATABASE_ROUTERS"].insert(0, "tests.others.place.routers.CachedModelsOnPrimary")


def prepare() -> None:
    from cacheops import invalidate_all

    invalidate_all()
