"""django-waffle: switches and flags act on pages. They are cached, and what is cached must not come from a replica that is behind."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-waffle"
APPS = ["waffle"]
MIDDLEWARE = ["waffle.middleware.WaffleMiddleware"]
CHECK = "django_pglb.W029"
# By what it needs.
IS_READ_FROM_PRIMARY = True


def remedy(settings: dict[str, Any]) -> None:
    settings["WAFFLE_READ_FROM_WRITE_DB"] = True


def urls() -> list[Any]:
    from django.http import HttpResponse
    from django.urls import path
    from waffle import flag_is_active, get_waffle_flag_model, get_waffle_switch_model, switch_is_active

    models = {"switch": get_waffle_switch_model(), "flag": get_waffle_flag_model()}

    def edit(request: Any) -> HttpResponse:
        field = "active" if request.POST["kind"] == "switch" else "everyone"
        found, _ = models[request.POST["kind"]].objects.get_or_create(name=request.POST["name"])
        setattr(found, field, request.POST["on"] == "1")
        found.save()
        return HttpResponse()

    def show(request: Any) -> HttpResponse:
        return HttpResponse(f"switch {switch_is_active('new')} flag {flag_is_active(request, 'beta')}")

    return [path("edit/", edit), path("", show)]


def _edit(visit: Any, kind: str, name: str, on: str, shows: str) -> None:
    from django.test import Client

    visit.post("/edit/", {"kind": kind, "name": name, "on": on})
    # Others fill the cache, while the replicas do not have it.
    for _ in range(3):
        Client().get("/")
    visit.sees("/", shows)


def switch(visit: Any) -> None:
    visit.sees("/", "switch False flag False")
    _edit(visit, "switch", "new", "1", "switch True flag False")


def flag(visit: Any) -> None:
    _edit(visit, "flag", "beta", "1", "switch True flag True")


def switch_off(visit: Any) -> None:
    _edit(visit, "switch", "new", "0", "switch False flag True")


STEPS = [switch, flag, switch_off]
