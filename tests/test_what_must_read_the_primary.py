"""The means of docs/what-must-read-the-primary.md: what counts for everybody at once is read where it was written, whatever the lag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_pglb import use_primary
from django_pglb.core.decision import Reason

from .fix_site import Served, Site
from .guestbook.models import Entry

pytestmark = pytest.mark.urls(__name__)

OURS = "django_pglb.routers.ReplicaRouter"
IN_TABLE = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "throttles"}
LIMIT = 2


class PrimaryReads:
    """As the page has it."""

    APPS = frozenset({"django_cache"})

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "default" if model._meta.app_label in self.APPS else None


class FreshPages:
    """As the page has it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/billing/"):
            with use_primary():
                return self.get_response(request)
        return self.get_response(request)


def throttled(request: HttpRequest) -> HttpResponse:
    """Let everybody come in twice, as throttles count."""
    history = caches["throttles"].get("everybody", [])
    if len(history) >= LIMIT:
        return HttpResponse(status=429)
    caches["throttles"].set("everybody", [*history, request.path], 60)
    return HttpResponse()


def once(request: HttpRequest) -> HttpResponse:
    """Take a code that is good once."""
    code = Entry.objects.filter(text="code").first()
    if code is None:
        return HttpResponse(status=410)
    Entry.objects.using("default").filter(text="code").delete()
    return HttpResponse()


def shown(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Entry.objects.count()))


urlpatterns = [
    path("throttled/", throttled),
    path("once/", once),
    path("once_fresh/", use_primary()(once)),
    path("billing/", shown),
    path("shown/", shown),
]


@pytest.fixture
def throttles(site: Site) -> Iterator[Site]:
    """A cache in a table of the cluster's."""
    with override_settings(CACHES={**django_settings.CACHES, "throttles": IN_TABLE}):
        call_command("createcachetable", verbosity=0)
        site.pause_replay()
        yield site
        site.resume_replay()
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE throttles")


def statuses(url: str, count: int) -> list[int]:
    """What strangers get, one after the other."""
    return [Client().get(url).status_code for _ in range(count)]


@pytest.mark.usefixtures("throttles")
def test_a_throttle_in_a_table_that_replicas_answer_limits_nobody() -> None:
    """What the check warns of."""
    assert statuses("/throttled/", 4) == [200] * 4


@pytest.mark.usefixtures("throttles")
def test_a_throttle_behind_a_router_in_front_holds() -> None:
    """Each count is read where it was written, and everything else still goes to replicas."""
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.PrimaryReads", OURS]):
        assert statuses("/throttled/", 4) == [200, 200, 429, 429]
        refused = Served(Client().get("/throttled/"))
        assert (refused.aliases, refused.reasons) == ({"default"}, {Reason.EXPLICIT})
        assert Served(Client().get("/shown/")).reasons == {Reason.REPLICA}


def test_a_link_that_works_once_reads_from_the_primary(site: Site) -> None:
    """Otherwise it works again while the replicas are behind."""
    for url, expected in (("/once/", [200, 200]), ("/once_fresh/", [200, 410])):
        site.resume_replay()
        Entry.objects.create(text="code")
        site.pause_replay()
        assert statuses(url, 2) == expected
    site.resume_replay()


def test_middleware_sends_the_pages_that_matter_to_the_primary(site: Site, settings: Any) -> None:
    """And no others."""
    ours, *rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [ours, f"{__name__}.FreshPages", *rest]
    site.pause_replay()
    Entry.objects.create(text="new")
    for url, alias_is_primary, reason, text in (("/billing/", True, Reason.FORCED_PRIMARY, "1"), ("/shown/", False, Reason.REPLICA, "0")):
        response = Client().get(url)
        assert response.content.decode() == text
        assert (Served(response).aliases == {"default"}, Served(response).reasons) == (alias_is_primary, {reason})
    site.resume_replay()
