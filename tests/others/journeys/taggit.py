"""django-taggit: an article gets tags, loses one, and is found by them."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-taggit"
APPS = ["taggit"]


def models() -> None:
    from django.db import models
    from taggit.managers import TaggableManager

    class Article(models.Model):
        title = models.CharField(max_length=50)
        tags = TaggableManager()

        class Meta:
            app_label = "place"


def urls() -> list[Any]:
    from django.apps import apps
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    article = apps.get_model("place", "Article")

    def edit(request: HttpRequest) -> HttpResponse:
        found, _ = article.objects.get_or_create(title="News")
        found = article.objects.get(pk=found.pk)
        found.tags.set(request.POST["tags"].split())
        return HttpResponse()

    def show(request: HttpRequest) -> HttpResponse:
        names = [",".join(sorted(tag.name for tag in found.tags.all())) for found in article.objects.prefetch_related("tags")]
        tagged = article.objects.filter(tags__name__in=["red"]).distinct().count()
        similar = [len(found.tags.similar_objects()) for found in article.objects.all()]
        return HttpResponse(f"{names} {tagged} {similar}")

    return [path("edit/", edit), path("", show)]


def tags(visit: Any) -> None:
    visit.sees("/", "[] 0 []")
    visit.post("/edit/", {"tags": "red blue"})
    visit.sees("/", "['blue,red'] 1 [0]")


def takes_a_tag_away(visit: Any) -> None:
    visit.post("/edit/", {"tags": "blue green"})
    visit.sees("/", "['blue,green'] 0 [0]")


STEPS = [tags, takes_a_tag_away]
