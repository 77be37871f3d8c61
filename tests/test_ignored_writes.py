"""Middleware that writes for itself, as profilers do, between `Begin` and `End`: pages stay on replicas, and views' writes bind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest
from django.test import AsyncClient, Client
from django.utils.deprecation import MiddlewareMixin

from django_pglb.core.decision import Reason
from django_pglb.ignored_writes import BEGIN, END, Begin
from django_pglb.middleware import LoadBalancingMiddleware

from .fix_site import Served, Site
from .guestbook.models import Author, Entry

OURS = "django_pglb.middleware.LoadBalancingMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


class Profiler:
    """Writes before and after the view, as django-silk does; it knows nothing of async."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        profile = Author.objects.create(name="started")
        response = self.get_response(request)
        with transaction.atomic():
            profile.name = "finished"
            profile.save()
        return response


class OldProfiler(MiddlewareMixin):
    """The same in the older style."""

    def process_request(self, request: HttpRequest) -> None:
        Author.objects.create(name="started")

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        Author.objects.create(name="finished")
        return response


class AsyncProfiler:
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[Any]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        await Author.objects.acreate(name="started")
        response = await self.get_response(request)
        await Author.objects.acreate(name="finished")
        return response


@pytest.fixture(params=[Profiler, OldProfiler, AsyncProfiler])
def profiler(request: pytest.FixtureRequest) -> str:
    return f"{__name__}.{request.param.__name__}"


@pytest.fixture
def without_boundaries(profiler: str, settings: Any) -> None:
    ours, *rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [ours, profiler, *rest]


@pytest.fixture
def with_boundaries(profiler: str, settings: Any) -> None:
    ours, *rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [ours, BEGIN, profiler, END, *rest]


class AsyncBrowser:
    """Django's asynchronous client, for tests that are not."""

    def __init__(self) -> None:
        self._client = AsyncClient(raise_request_exception=False)

    def get(self, path: str) -> Any:
        return async_to_sync(self._client.get)(path)

    def post(self, path: str, data: dict[str, str]) -> Any:
        return async_to_sync(self._client.post)(path, data)


@pytest.fixture(params=[Client, AsyncBrowser], ids=["sync", "async"])
def visitor(request: pytest.FixtureRequest, site: Site) -> Any:
    return AsyncBrowser() if request.param is AsyncBrowser else Client(raise_request_exception=False)


@pytest.mark.usefixtures("without_boundaries")
def test_without_boundaries_each_page_is_on_the_primary(site: Site, visitor: Any) -> None:
    """What a middleware writes the request has written."""
    served = Served(visitor.get("/newest/"))
    assert served.aliases == {"default"}
    assert Reason.WROTE in served.reasons


@pytest.mark.usefixtures("with_boundaries")
def test_what_stands_between_binds_nobody(site: Site, visitor: Any) -> None:
    """The page is read from a replica, its reader gets no pointer, and the rows are there."""
    response = visitor.get("/newest/")
    assert Reason.WROTE not in Served(response).reasons
    assert [decision.alias for decision in Served(response).decisions if decision.reason is Reason.REPLICA] != []
    assert "pglb" not in response.cookies
    assert site.pointer_keys() == []
    assert Author.objects.using("default").filter(name="finished").exists()


@pytest.mark.usefixtures("with_boundaries")
@pytest.mark.parametrize("path", ["/write/?text=mine", "/write_on_commit/?text=mine"])
def test_what_the_view_writes_binds_as_ever(site: Site, visitor: Any, path: str) -> None:
    """With replay paused the writer's next page is the primary's, for their pointer."""
    site.pause_replay()
    visitor.get(path)
    response = visitor.get("/newest/")
    assert response.json() == {"text": "mine"}
    assert Reason.BEHIND in Served(response).reasons


@pytest.mark.usefixtures("with_boundaries")
def test_a_view_that_writes_reads_it(site: Site, visitor: Any) -> None:
    """Within the request, too."""
    site.pause_replay()
    response = visitor.get("/write_then_read/")
    assert response.json() == {"count": 1}
    assert Reason.WROTE in Served(response).reasons


@pytest.mark.usefixtures("with_boundaries")
def test_an_exception_ends_the_boundaries(site: Site, visitor: Any) -> None:
    """What was committed before binds, and the next request begins as any other."""
    site.pause_replay()
    assert visitor.get("/write_and_fail/?text=mine").status_code == 500
    assert Entry.objects.using("default").get().text == "mine"
    assert visitor.get("/newest/").json() == {"text": "mine"}


def test_what_stands_above_ours_binds_nobody_either(site: Site, profiler: str, visitor: Any, settings: Any) -> None:
    """No unit of work is open there."""
    settings.MIDDLEWARE = [profiler, *settings.MIDDLEWARE]
    assert Served(visitor.get("/newest/")).reasons == {Reason.REPLICA}
    assert site.pointer_keys() == []


class OurSessions(SessionMiddleware):
    """As sites extend it."""


class OurBalancing(LoadBalancingMiddleware):
    """The same."""


BETWEEN = [SESSIONS, OURS, f"{__name__}.OurSessions", f"{__name__}.OurBalancing"]


@pytest.mark.parametrize("entries", [[BEGIN], [END], [BEGIN, BEGIN, END], *([BEGIN, entry, END] for entry in BETWEEN)], ids=str)
def test_boundaries_that_do_not_match_are_refused(settings: Any, entries: list[str]) -> None:
    """Servers run no checks, and what a view writes would bind nobody."""
    settings.MIDDLEWARE = [OURS, *entries]
    with pytest.raises(ImproperlyConfigured, match=r"MIDDLEWARE: .*ignored_writes"):
        Begin(lambda request: None)
