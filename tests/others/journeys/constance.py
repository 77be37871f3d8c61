"""django-constance: settings in a table, changed in the admin."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-constance"
APPS = ["constance"]
SETTINGS = {"CONSTANCE_BACKEND": "constance.backends.database.DatabaseBackend", "CONSTANCE_CONFIG": {"GREETING": ("hello", "Said to all")}}


def urls() -> list[Any]:
    from constance import config
    from django.http import HttpResponse
    from django.urls import path

    def show(request: Any) -> HttpResponse:
        return HttpResponse(f"says {config.GREETING}")

    def change(request: Any) -> HttpResponse:
        config.GREETING = request.POST["text"]
        return HttpResponse()

    return [path("change/", change), path("", show)]


def is_changed(visit: Any) -> None:
    visit.sees("/", "says hello")
    visit.post("/change/", {"text": "good morning"})
    visit.sees("/", "says good morning")


def is_changed_in_the_admin(visit: Any) -> None:
    import re

    visit.sign_in()
    page = visit.get("/admin/constance/config/")
    version = re.search(r'name="version" value="(\w+)"', page)
    assert version is not None
    visit.post("/admin/constance/config/", {"version": version[1], "GREETING": "good night"})
    visit.sees("/", "says good night")
    visit.sees("/admin/constance/config/", "good night")


STEPS = [is_changed, is_changed_in_the_admin]
