"""What the middleware costs a request whose view does the least that makes it work, beside a middleware that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections
from django.http import HttpRequest, HttpResponse

from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound
from django_pglb.identity import session_owners
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.placement import route_read
from django_pglb.pointers import note_write
from django_pglb.stores.carried import sign

from .conftest import Case
from .environment import contender
from .tables import ANONYMOUS_NOTHING, ANONYMOUS_READ, MIDDLEWARE, NOTHING

SESSION_KEY = "k" * 32


class Nothing:
    """A middleware that does nothing."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)


def _anonymous() -> HttpRequest:
    request = HttpRequest()
    request.method = "GET"
    return request


def _signed_in() -> HttpRequest:
    request = _anonymous()
    request.COOKIES[settings.SESSION_COOKIE_NAME] = SESSION_KEY
    request.session = SessionStore(SESSION_KEY)
    return request


def _bound() -> HttpRequest:
    request = _signed_in()
    request.COOKIES["pglb"] = sign({"default": Bound(Pointer(1, 1024, time.time()))})
    return request


def _posting() -> HttpRequest:
    request = _signed_in()
    request.method = "POST"
    return request


# How a request looks, and what its view does.
REQUESTS: dict[str, tuple[Callable[[], HttpRequest], Callable[[], object]]] = {
    ANONYMOUS_NOTHING: (_anonymous, lambda: None),
    ANONYMOUS_READ: (_anonymous, lambda: route_read("default")),
    "signed in, reads nothing": (_signed_in, lambda: None),
    "signed in, one read: the store is asked": (_signed_in, lambda: route_read("default")),
    "the same with the pointer cookie": (_bound, lambda: route_read("default")),
    "signed in, wrote: a position and a save": (_posting, lambda: note_write("default")),
}


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """This process knows whose session it is."""
    session_owners.remember(SESSION_KEY, "1")
    yield
    connections.close_all()


@pytest.mark.parametrize("which", [NOTHING, "ours"])
@pytest.mark.parametrize("name", REQUESTS)
def test_middleware(name: str, which: str, fill: Case) -> None:
    make, view = REQUESTS[name]
    # Without a unit of work there is nothing to route, so the view beside the idle middleware does nothing.
    get_response = _returning(view if which == "ours" else lambda: None)
    middleware: Any = LoadBalancingMiddleware(get_response) if which == "ours" else Nothing(get_response)
    fill(MIDDLEWARE, name, NOTHING if which == NOTHING else contender().title, middleware, fresh=lambda: (_with_response(make()),))


def _with_response(request: HttpRequest) -> HttpRequest:
    """Return `request` with the response that its view will return: to make one is not the middleware's work."""
    request.prepared_response = HttpResponse()
    return request


def _returning(view: Callable[[], object]) -> Callable[[HttpRequest], HttpResponse]:
    def get_response(request: HttpRequest) -> HttpResponse:
        view()
        response: HttpResponse = request.prepared_response
        return response

    return get_response
