"""django-guardian: rights to single rows are given, seen and taken away."""

from __future__ import annotations

from typing import Any

from .cachalot import models

PACKAGE = "django-guardian"
APPS = ["guardian"]
SETTINGS = {"AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend", "guardian.backends.ObjectPermissionBackend"]}
__all__ = ["models"]


def urls() -> list[Any]:
    from django.apps import apps
    from django.contrib.auth.models import Group, User
    from django.http import HttpResponse
    from django.urls import path
    from guardian.shortcuts import assign_perm, get_objects_for_user, remove_perm

    article = apps.get_model("place", "Article")

    def edit(request: Any) -> HttpResponse:
        found, _ = article.objects.get_or_create(title=request.POST["title"])
        bob, _ = User.objects.get_or_create(username="bob")
        readers, _ = Group.objects.get_or_create(name="readers")
        bob.groups.add(readers)
        change = remove_perm if "remove" in request.POST else assign_perm
        change("place.view_article", readers if "group" in request.POST else bob, found)
        return HttpResponse()

    def show(request: Any) -> HttpResponse:
        bob = User.objects.filter(username="bob").first()
        may = [] if bob is None else get_objects_for_user(bob, "place.view_article").order_by("pk")
        asked = [] if bob is None else [bob.has_perm("place.view_article", found) for found in article.objects.order_by("pk")]
        return HttpResponse(f"{[found.title for found in may]} {asked}")

    return [path("edit/", edit), path("", show)]


def gives(visit: Any) -> None:
    visit.sign_in()
    visit.sees("/", "[] []")
    visit.post("/edit/", {"title": "One"})
    visit.sees("/", "One", "[True]")
    visit.post("/edit/", {"title": "Two", "group": "1"})
    visit.sees("/", "One", "Two", "[True, True]")


def takes(visit: Any) -> None:
    visit.post("/edit/", {"title": "One", "remove": "1"})
    visit.sees("/", "Two", "[False, True]", without=("One",))
    visit.post("/edit/", {"title": "Two", "remove": "1", "group": "1"})
    visit.sees("/", "[] [False, False]")


STEPS = [gives, takes]
