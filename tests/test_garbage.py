"""A unit of work that has ended is freed at once, with its request and all that it read, and not by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from django_pglb import current_decisions, routing_session
from django_pglb.context import current_scope, routing_of
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Entry

Watched = list["weakref.ref[Any]"]


@pytest.fixture(autouse=True)
def no_collector(site: Site) -> Iterator[None]:
    site.wait_until_online()
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def read(watched: Watched, *subjects: Any) -> None:
    """Read twice, so that the second read finds what has been decided for the first."""
    for _ in range(2):
        list(Entry.objects.all())
    assert [(found.reason, found.count) for found in current_decisions()] == [("replica", 2)]
    watched += [weakref.ref(subject) for subject in (current_scope().routing, *subjects)]


def request() -> HttpRequest:
    return RequestFactory().get("/")


def page(watched: Watched) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        read(watched, request)
        return HttpResponse()

    LoadBalancingMiddleware(view)(request())


def late_task(watched: Watched) -> None:
    contexts: list[Context] = []

    def view(request: HttpRequest) -> HttpResponse:
        contexts.append(copy_context())
        return HttpResponse()

    LoadBalancingMiddleware(view)(request())
    contexts.pop().run(read, watched)


def failing_page(watched: Watched) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        read(watched, request)
        raise LookupError

    with pytest.raises(LookupError):
        LoadBalancingMiddleware(view)(request())


def async_page(watched: Watched) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        await sync_to_async(read)(watched, request)
        return HttpResponse()

    async def visit() -> None:
        await LoadBalancingMiddleware(view)(request())  # type: ignore[misc]  # it is async, as the view is

    asyncio.run(visit())


def stream(watched: Watched) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        def chunks() -> Iterator[bytes]:
            read(watched, request)
            yield b"all"

        return StreamingHttpResponse(chunks())

    response: Any = LoadBalancingMiddleware(view)(request())
    assert list(response) == [b"all"]
    response.close()


def async_stream(watched: Watched) -> None:
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        async def chunks() -> AsyncIterator[bytes]:
            await sync_to_async(read)(watched, request)
            yield b"all"

        return StreamingHttpResponse(chunks())

    async def visit() -> None:
        response: Any = await LoadBalancingMiddleware(view)(request())  # type: ignore[misc]  # it is async, as the view is
        assert [chunk async for chunk in response] == [b"all"]

    asyncio.run(visit())


def block(watched: Watched) -> None:
    with routing_session():
        read(watched)


@pytest.mark.parametrize("unit", [page, late_task, failing_page, async_page, stream, async_stream, block])
def test_unit_of_work_leaves_nothing_to_the_collector(unit: Callable[[Watched], None]) -> None:
    watched: Watched = []
    unit(watched)
    assert watched
    # A thread that has done its part for an event loop lets go of it a moment after the loop knows. The collector sleeps all the while.
    wait_until(lambda: all(reference() is None for reference in watched), timeout=10, what="a unit of work to be freed")


def test_request_finds_its_unit_of_work_while_it_goes_on() -> None:
    found: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        found.append(routing_of(request) is current_scope().routing is not None)
        return HttpResponse()

    ours = request()
    LoadBalancingMiddleware(view)(ours)
    assert (found, routing_of(ours)) == ([True], None)
