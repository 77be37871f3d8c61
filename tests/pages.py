"""Pages that are cached, by Django's `cache_page` and by ours. An urlconf of its own, beside the guestbook's."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.urls import path
from django.views.decorators.cache import cache_page as django_cache_page

from django_pglb import routing_session, use_primary, use_replicas
from django_pglb.page_cache import cache_page

from .api.bearer import subject
from .guestbook.models import Entry
from .guestbook.urls import urlpatterns as pages

SECONDS = 600
cached = cache_page(SECONDS, cache="pages")


def newest() -> str:
    entry = Entry.objects.order_by("-pk").first()
    return entry.text if entry else ""


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(newest())


async def async_page(request: HttpRequest) -> HttpResponse:
    entry = await Entry.objects.order_by("-pk").afirst()
    return HttpResponse(entry.text if entry else "")


class LateResponse(SimpleTemplateResponse):
    """Reads what it shows while it is rendered, as templates do."""

    @property
    def rendered_content(self) -> str:
        return newest()


def of_bearer(request: HttpRequest) -> HttpResponse:
    """Know the user only here, as API views do."""
    request.user = User.objects.get(pk=subject(request))
    if request.method == "POST":
        Entry.objects.create(text="written")
    return HttpResponse(newest())


def late(request: HttpRequest) -> LateResponse:
    return LateResponse("no template")


def inner(request: HttpRequest) -> HttpResponse:
    with routing_session():
        return HttpResponse(newest())


def partly_stale(request: HttpRequest) -> HttpResponse:
    text = newest()
    with use_replicas(), routing_session():
        return HttpResponse(f"{text} of {Entry.objects.count()}")


def counted(request: HttpRequest) -> HttpResponse:
    Entry.objects.create(text="visit")
    return HttpResponse(str(Entry.objects.count()))


def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing read")


VIEWS: dict[str, Any] = {
    "page": cached(page),
    "django_page": django_cache_page(SECONDS, cache="pages")(page),
    "async_page": cached(async_page),
    "of_bearer": cached(of_bearer),
    "late": cached(late),
    "inner": cached(inner),
    "stale_inside": cached(use_replicas()(page)),
    "stale_outside": use_replicas()(cached(page)),
    "partly_stale": cached(partly_stale),
    "primary_inside": cached(use_primary()(page)),
    "counted": cached(counted),
    "empty": cached(empty),
    "uncached": page,
}

urlpatterns = [*pages, *(path(f"{name}/", view) for name, view in VIEWS.items())]
