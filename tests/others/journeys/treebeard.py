"""django-treebeard: a tree that is moved about by raw SQL."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-treebeard"
APPS = ["treebeard"]


def models() -> None:
    from django.db import models
    from treebeard.mp_tree import MP_Node

    class Category(MP_Node):  # type: ignore[misc]
        name = models.CharField(max_length=30)

        class Meta:
            app_label = "place"


def urls() -> list[Any]:
    from django.apps import apps
    from django.http import HttpResponse
    from django.urls import path

    category = apps.get_model("place", "Category")

    def grow(request: Any) -> HttpResponse:
        if request.POST["under"]:
            category.objects.get(name=request.POST["under"]).add_child(name=request.POST["name"])
        else:
            category.add_root(name=request.POST["name"])
        return HttpResponse()

    def move(request: Any) -> HttpResponse:
        category.objects.get(name=request.POST["name"]).move(category.objects.get(name=request.POST["under"]), "last-child")
        return HttpResponse()

    def show(request: Any) -> HttpResponse:
        return HttpResponse(" ".join(f"{'-' * (each.depth - 1)}{each.name}:{each.get_children_count()}" for each in category.get_tree()))

    return [path("grow/", grow), path("move/", move), path("", show)]


def grows(visit: Any) -> None:
    visit.sees("/", without=("Rock",))
    for name, under in (("Rock", ""), ("Metal", "Rock"), ("Doom", "Metal")):
        visit.post("/grow/", {"name": name, "under": under})
        visit.sees("/", name)
    visit.sees("/", "Rock:1 -Metal:1 --Doom:0")


def moves(visit: Any) -> None:
    visit.post("/move/", {"name": "Doom", "under": "Rock"})
    visit.sees("/", "Rock:2 -Metal:0 -Doom:0")


STEPS = [grows, moves]
