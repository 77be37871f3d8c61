"""A unit of work that a middleware opens around views: whom the request acts for binds it, whenever that is learnt. Value, host, reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.test import Client, RequestFactory
from django.urls import path

from django_pglb import routing_session, stick
from django_pglb.core.decision import Reason
from django_pglb.identity import session_owners
from django_pglb.middleware import LoadBalancingMiddleware

from .api.urls import urlpatterns as pages
from .fix_site import Served, Site
from .guestbook.models import Entry
from .guestbook.views import newest
from .test_api_clients import by_bearer, texts
from .test_costs import redis_commands
from .test_read_your_writes import signed_in

pytestmark = pytest.mark.urls(__name__)


def tenants(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Act for the tenant too, whom a query finds: before anything else is known of who asks."""

    def middleware(request: HttpRequest) -> Any:
        with routing_session(identity=("tenant", "1")):
            Entry.objects.filter(text="tenant").first()
            return get_response(request)

    return middleware


def newest_by_key(request: HttpRequest) -> JsonResponse:
    stick(request, "user", request.headers["X-Key-Of"])
    return newest(request)


urlpatterns = [*pages, path("newest_by_key/", newest_by_key)]


@pytest.fixture(autouse=True)
def in_tenants(site: Site, settings: Any) -> None:
    ours, *rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [ours, f"{__name__}.tenants", *rest]


def write_elsewhere(user: User) -> None:
    """Write as another device of the user does."""
    with routing_session(identity=("user", str(user.pk))):
        Entry.objects.create(text="mine")


def assert_served(response: Any, text: str | None) -> None:
    """Assert that only the tenant's row came from a replica."""
    assert text == "mine"
    assert Served(response).reasons == {Reason.REPLICA, Reason.BEHIND}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)


def test_session_is_looked_at_when_there_is_one(site: Site, user: User) -> None:
    """The middleware's own read comes before there is a session to look at."""
    browser = signed_in(user)
    site.pause_replay()
    write_elsewhere(user)
    session_owners.clear()
    response = browser.get("/newest/")
    assert_served(response, response.json()["text"])


def test_user_of_a_token_binds_once_the_view_knows_them(site: Site, user: User) -> None:
    """In the same request."""
    client = by_bearer(user)
    site.pause_replay()
    write_elsewhere(user)
    response = client.get("/api/bearer/entries/")
    assert_served(response, texts(response)[0] if texts(response) else None)


def test_what_a_view_sticks_to_the_request_binds(site: Site, user: User) -> None:
    """Although the unit in force is not the request's own."""
    site.pause_replay()
    write_elsewhere(user)
    response = Client(headers={"X-Key-Of": str(user.pk)}).get("/newest_by_key/")
    assert_served(response, response.json()["text"])


def test_stick_asks_nothing_itself(site: Site, user: User, rf: RequestFactory) -> None:
    """It may be called in an event loop, which nothing may block; and there may be no further read."""

    def view(request: HttpRequest) -> JsonResponse:
        response = newest(request)
        site.redis.echo("read")
        stick(request, "user", str(user.pk))
        return response

    with redis_commands(site) as commands:
        LoadBalancingMiddleware(view)(rf.get("/"))
    assert [command.split()[0] for command in commands] == ["ECHO"]


def test_session_itself_is_read_by_its_pointer(site: Site, user: User, settings: Any) -> None:
    """It was made just now, and no replica has it: nothing is read from one."""
    ours, around, *rest = settings.MIDDLEWARE
    settings.MIDDLEWARE = [ours, *rest, around]
    site.pause_replay()
    browser = Client()
    browser.post("/sign_in/", {"username": "ann", "password": "secret"})
    del browser.cookies["pglb"]
    session_owners.clear()
    response = browser.get("/newest/")
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


def test_block_around_the_view_keeps_no_read_on_the_primary(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATOMIC_REQUESTS alone does not, whichever unit is in force."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    Entry.objects.create(text="x")
    site.wait_until_seen()
    connections["default"].close()
    mark = site.log_end("default")
    response = Client().get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": "x"}, {Reason.REPLICA})
    assert site.statements("default", mark) == []


def test_view_that_says_it_only_reads_is_not_taken_to_have_written(site: Site) -> None:
    """In neither unit: after the middleware's own read a POST of its kind asks nothing of the primary, and nobody is bound by it."""
    mark = site.log_end("default")
    response = Client().post("/search/")
    assert (Served(response).reasons, "pglb" in response.cookies) == ({Reason.UNSAFE_METHOD, Reason.REPLICA}, False)
    (statement,) = site.statements("default", mark)
    assert "tenant" in statement
