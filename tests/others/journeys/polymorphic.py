"""django-polymorphic: rows of several models come out of one query."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-polymorphic"
APPS = ["polymorphic"]


def models() -> None:
    from django.db import models
    from polymorphic.models import PolymorphicModel

    class Project(PolymorphicModel):  # type: ignore[misc]
        topic = models.CharField(max_length=30)

        class Meta:
            app_label = "place"

    class ArtProject(Project):
        artist = models.CharField(max_length=30)

        class Meta:
            app_label = "place"

    class ResearchProject(Project):
        supervisor = models.CharField(max_length=30)

        class Meta:
            app_label = "place"

    assert ArtProject is not ResearchProject


def urls() -> list[Any]:
    from django.apps import apps
    from django.http import HttpResponse
    from django.urls import path

    project, art, research = (apps.get_model("place", name) for name in ("Project", "ArtProject", "ResearchProject"))

    def edit(request: Any) -> HttpResponse:
        art.objects.create(topic=request.POST["topic"], artist="Ann")
        research.objects.create(topic=request.POST["topic"], supervisor="Bob")
        project.objects.instance_of(research).update(topic="research")
        return HttpResponse()

    def show(request: Any) -> HttpResponse:
        projects = project.objects.order_by("pk")
        found = [f"{type(each).__name__} {getattr(each, 'artist', None) or each.supervisor} {each.topic}" for each in projects]
        some = project.objects.filter(ArtProject___artist="Ann").count()
        return HttpResponse(f"{found} {some}")

    return [path("edit/", edit), path("", show)]


def several_kinds(visit: Any) -> None:
    visit.sees("/", "[] 0")
    visit.post("/edit/", {"topic": "colours"})
    visit.sees("/", "ArtProject Ann colours", "ResearchProject Bob research", "1")
    visit.post("/edit/", {"topic": "forms"})
    visit.sees("/", "ArtProject Ann forms", "2")


STEPS = [several_kinds]
