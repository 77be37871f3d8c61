"""django-silk: a profiler that writes in each request, and shows what it has written."""

from __future__ import annotations

from typing import Any

from .cachalot import models, urls

PACKAGE = "django-silk"
APPS = ["silk"]
MIDDLEWARE_ABOVE = ["silk.middleware.SilkyMiddleware"]
CHECK = "django_pglb.W031"

__all__ = ["models"]
_pages = urls


def remedy(settings: dict[str, Any]) -> None:
    index = settings["MIDDLEWARE"].index("silk.middleware.SilkyMiddleware")
    settings["MIDDLEWARE"].insert(index + 1, "django_pglb.ignored_writes.End")
    settings["MIDDLEWARE"].insert(index, "django_pglb.ignored_writes.Begin")


def urls() -> list[Any]:  # type: ignore[no-redef]
    from django.urls import include, path

    return [*_pages(), path("silk/", include("silk.urls", namespace="silk"))]


def pages_are_profiled(visit: Any) -> None:
    for _ in range(5):
        visit.sees("/")
    visit.post("/edit/", {"title": "old"})
    visit.sees("/", "old")


def profiles_are_shown(visit: Any) -> None:
    visit.sees("/silk/requests/", "/edit/")
    visit.sees("/silk/", "Summary")


STEPS = [pages_are_profiled, profiles_are_shown]
