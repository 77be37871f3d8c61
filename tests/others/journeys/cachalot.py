"""django-cachalot: what a page showed is cached, and a write must reach it."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-cachalot"
APPS = ["cachalot"]
SETTINGS = {"CACHALOT_TIMEOUT": 600}
CHECK = "django_pglb.W030"


def remedy(settings: dict[str, Any]) -> None:
    settings["CACHALOT_DATABASES"] = ["default"]
    settings["CACHALOT_ADDITIONAL_SUPPORTED_DATABASES"] = {"django_pglb.backends.postgresql"}


def models() -> None:
    from django.db import models

    class Article(models.Model):
        title = models.CharField(max_length=50)

        class Meta:
            app_label = "place"


def urls() -> list[Any]:
    from django.apps import apps
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    article = apps.get_model("place", "Article")

    def edit(request: HttpRequest) -> HttpResponse:
        article.objects.update_or_create(pk=1, defaults={"title": request.POST["title"]})
        return HttpResponse()

    def show(request: HttpRequest) -> HttpResponse:
        return HttpResponse(", ".join(found.title for found in article.objects.all()))

    return [path("edit/", edit), path("", show)]


def stranger_looks(visit: Any) -> None:
    """Fill the cache, as often as there are replicas."""
    for _ in range(4):
        visit.sees("/", without=("old", "new"))


def writes(visit: Any) -> None:
    visit.post("/edit/", {"title": "old"})
    _stranger_sees_something()
    visit.sees("/", "old")


def writes_again(visit: Any) -> None:
    visit.post("/edit/", {"title": "new"})
    _stranger_sees_something()
    visit.sees("/", "new", without=("old",))


def _stranger_sees_something() -> None:
    """Somebody else reads while the replicas do not have it: that must not be what the writer gets later."""
    from django.test import Client

    for _ in range(3):
        Client().get("/")


STEPS = [stranger_looks, writes, writes_again]
