"""django-mptt: a tree, built and moved about in the admin."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-mptt"
APPS = ["mptt"]


def models() -> None:
    from django.contrib import admin
    from django.db import models
    from mptt.admin import MPTTModelAdmin
    from mptt.models import MPTTModel, TreeForeignKey

    class Genre(MPTTModel):  # type: ignore[misc]
        name = models.CharField(max_length=50)
        parent = TreeForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")

        class Meta:
            app_label = "place"

        def __str__(self) -> str:
            return self.name

    admin.site.register(Genre, MPTTModelAdmin)


def urls() -> list[Any]:
    from django.apps import apps
    from django.http import HttpResponse
    from django.urls import path

    genre = apps.get_model("place", "Genre")

    def show(request: Any) -> HttpResponse:
        lines = [f"{'-' * found.level}{found}:{found.get_descendant_count()}" for found in genre.objects.all()]
        leaves = [str(found) for root in genre.objects.root_nodes() for found in root.get_leafnodes()]
        return HttpResponse(" ".join([*lines, *leaves]))

    return [path("", show)]


def _pk(name: str) -> int:
    from django.apps import apps

    return int(apps.get_model("place", "Genre").objects.get(name=name).pk)


def grows(visit: Any) -> None:
    visit.sign_in()
    visit.sees("/admin/place/genre/", "0 genres")
    visit.post("/admin/place/genre/add/", {"name": "Rock"})
    visit.post("/admin/place/genre/add/", {"name": "Metal", "parent": _pk("Rock")})
    visit.post("/admin/place/genre/add/", {"name": "Doom", "parent": _pk("Metal")})
    visit.sees("/", "Rock:2", "-Metal:1", "--Doom:0")
    visit.sees("/admin/place/genre/", "Rock", "Doom", "3 genres")


def moves(visit: Any) -> None:
    visit.post(f"/admin/place/genre/{_pk('Doom')}/change/", {"name": "Doom", "parent": _pk("Rock")})
    visit.sees("/", "Rock:2", "-Metal:0", "-Doom:0")


def shrinks(visit: Any) -> None:
    visit.post(f"/admin/place/genre/{_pk('Metal')}/delete/", {"post": "yes"})
    visit.sees("/", "Rock:1", "-Doom:0", without=("Metal",))


STEPS = [grows, moves, shrinks]
