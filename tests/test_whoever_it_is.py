"""Whoever `request.user` turns out to be is bound, however they were found, by the time something is read or saved. Value, host, reason."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.functional import SimpleLazyObject
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import api_view, authentication_classes, renderer_classes
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.test import APIClient

from django_pglb import routing_session, use_replicas
from django_pglb.core.decision import Reason

from .fix_site import Served, Site
from .guestbook.models import Entry
from .guestbook.views import sign_in
from .test_api_clients import CookielessClient
from .test_costs import redis_commands
from .test_read_your_writes import signed_in

pytestmark = pytest.mark.urls(__name__)


# --- How a site may find out who it is ---


def named(request: Any) -> User | None:
    """Find the user whom the client names: by a row, as keys are looked up."""
    name = request.headers.get("X-Api-Key") or request.GET.get("key") or request.COOKIES.get("key")
    return User.objects.filter(username=name).first() if name else None


def entries(request: Any) -> JsonResponse:
    if request.method == "POST":
        Entry.objects.create(text=request.user.get_username())
        return JsonResponse({})
    return JsonResponse({"entries": list(Entry.objects.values_list("text", flat=True))})


def in_view(request: HttpRequest) -> JsonResponse:
    Entry.objects.exists()
    request.user = named(request) or AnonymousUser()
    return entries(request)


def within_unit(request: HttpRequest) -> JsonResponse:
    """The view's own unit of work is open when the user is found."""
    with routing_session():
        Entry.objects.exists()
        request.user = named(request) or AnonymousUser()
        return entries(request)


def stale_user(request: HttpRequest) -> JsonResponse:
    with use_replicas():
        request.user = named(request) or AnonymousUser()
    return entries(request)


def lazily(request: HttpRequest) -> JsonResponse:
    """Nobody asks who it is before something else was read."""
    request.user = SimpleLazyObject(lambda: named(request) or AnonymousUser())  # type: ignore[assignment]
    Entry.objects.exists()
    request.user.is_authenticated  # noqa: B018 - finds out
    return entries(request)


def lazily_twice(request: HttpRequest) -> JsonResponse:
    """Who is found is lazy again."""
    user = SimpleLazyObject(lambda: named(request) or AnonymousUser())
    request.user = SimpleLazyObject(lambda: user)  # type: ignore[assignment]
    Entry.objects.exists()
    request.user.is_authenticated  # noqa: B018 - finds out
    return entries(request)


class Proxy:
    """Lazy as other packages are: whatever is asked of it runs a query."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(named(self._request) or AnonymousUser(), name)

    __class__ = property(lambda self: type(named(self._request)))  # type: ignore[assignment]


def by_proxy(request: HttpRequest) -> JsonResponse:
    Entry.objects.exists()
    request.user = Proxy(request)  # type: ignore[assignment]
    Entry.objects.exists()
    return entries(request)


def for_a_while(request: HttpRequest) -> JsonResponse:
    """As a decorator may do it: nobody is there when this is saved."""
    before, request.user = request.user, named(request) or AnonymousUser()
    try:
        return entries(request)
    finally:
        request.user = before


async def in_coroutine(request: HttpRequest) -> JsonResponse:
    await Entry.objects.aexists()
    request.user = await User.objects.filter(username=request.headers["X-Api-Key"]).afirst() or AnonymousUser()
    if request.method == "POST":
        await Entry.objects.acreate(text=request.user.get_username())
    return JsonResponse({"entries": [entry.text async for entry in Entry.objects.all()]})


class ByKey(BaseAuthentication):
    def authenticate(self, request: Any) -> tuple[User, None] | None:
        user = named(request)
        return None if user is None else (user, None)


@api_view(["GET", "POST"])
@authentication_classes([ByKey])
@renderer_classes([JSONRenderer])
def by_class(request: Any) -> Response:
    if request.method == "POST":
        Entry.objects.create(text=request.user.get_username())
    return Response({"entries": list(Entry.objects.values_list("text", flat=True))})


def by_middleware(request: HttpRequest) -> JsonResponse:
    return entries(request)


class KeyMiddleware:
    """Stands where such middleware does: behind Django's own, and only for its path."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        if request.path == "/by_middleware/":
            request.user = named(request) or AnonymousUser()
        return self.get_response(request)


def impersonate(request: HttpRequest) -> JsonResponse:
    """As helpdesks do: somebody is signed in, and acts for somebody else."""
    Entry.objects.exists()
    request.user.is_authenticated  # noqa: B018 - finds out who is signed in
    request.user = named(request) or request.user
    return entries(request)


def many(request: HttpRequest) -> JsonResponse:
    for _ in range(3):
        Entry.objects.order_by("-pk").first()
    return JsonResponse({})


WAYS = [in_view, within_unit, stale_user, lazily, lazily_twice, by_proxy, for_a_while]
VIEWS = [*WAYS, in_coroutine, by_middleware, impersonate, many, sign_in]
urlpatterns = [*(path(f"{view.__name__}/", view) for view in VIEWS), path("by_class/", by_class)]


@pytest.fixture(autouse=True)
def _middleware(site: Site, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.KeyMiddleware"]


BY_VIEW = [*(view.__name__ for view in WAYS), "by_class", "by_middleware"]


def with_cookie() -> Client:
    """Keeps no cookie but this one."""

    class KeyCookie(CookielessClient):
        def request(self, **request: Any) -> Any:
            self.cookies["key"] = "ann"
            return super().request(**request)

    return KeyCookie()


HEADER = {"X-Api-Key": "ann"}
CLIENTS: dict[str, tuple[Callable[[], Client], str]] = {
    "header": (lambda: CookielessClient(headers=HEADER), ""),
    "query": (CookielessClient, "?key=ann"),
    "cookie": (with_cookie, ""),
}


@pytest.mark.parametrize("by", CLIENTS)
@pytest.mark.parametrize("view", BY_VIEW)
def test_whoever_was_found_sees_what_they_wrote(site: Site, user: User, by: str, view: str) -> None:
    """Without a cookie jar, an Authorization header, or a word to us; somebody else reads a replica."""
    client, query = CLIENTS[by][0](), CLIENTS[by][1]
    site.pause_replay()
    assert client.post(f"/{view}/{query}").status_code == 200
    response = client.get(f"/{view}/{query}")
    assert response.json() == {"entries": ["ann"]}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)
    stranger = CookielessClient().get(f"/{view}/")
    assert (stranger.json(), Served(stranger).reasons) == ({"entries": []}, {Reason.REPLICA})


def test_whoever_was_found_in_a_coroutine_sees_what_they_wrote(site: Site, user: User) -> None:
    """The store is asked in the thread of the query, not in the event loop."""
    site.pause_replay()

    async def ask() -> Any:
        await AsyncClient().post("/in_coroutine/", headers=HEADER)
        return await AsyncClient().get("/in_coroutine/", headers=HEADER)

    response = asyncio.run(ask())
    assert response.json() == {"entries": ["ann"]}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)


def test_forced_authentication_counts(site: Site, user: User) -> None:
    """As tests of APIs do it."""
    client = APIClient()
    client.force_authenticate(user)
    site.pause_replay()
    client.post("/by_class/")
    client.cookies.clear()
    response = client.get("/by_class/")
    assert response.json() == {"entries": ["ann"]}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)


def test_whoever_is_acted_for_is_bound_beside_who_is_signed_in(site: Site, user: User) -> None:
    """The signed-in user was found first."""
    User.objects.create_user("helper", password="secret")
    helper = Client()
    helper.post("/sign_in/", {"username": "helper", "password": "secret"})
    site.pause_replay()
    CookielessClient(headers=HEADER).post("/in_view/")
    response = helper.get("/impersonate/?key=ann")
    assert response.json() == {"entries": ["ann"]}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)
    assert helper.get("/impersonate/").json() == {"entries": []}


def test_user_binds_their_browser_and_keys(site: Site, user: User) -> None:
    """Whatever one of them wrote the other one sees."""
    browser = signed_in(user)
    site.pause_replay()
    CookielessClient(headers=HEADER).post("/in_view/")
    response = browser.get("/lazily/")
    assert (response.json(), Served(response).decisions[-1][:2]) == ({"entries": ["ann"]}, ("default", Reason.BEHIND))


# --- What it costs ---


def test_nobody_who_is_found_asks_redis_twice(site: Site, user: User) -> None:
    """A key in a header of its own is nothing that the store could be asked about; its user is, once."""
    site.wait_until_seen()
    with redis_commands(site) as commands:
        CookielessClient(headers=HEADER).get("/in_view/")
        site.redis.echo("nobody")
        CookielessClient().get("/in_view/")
    assert [command.split()[0] for command in commands] == ["MGET", "ECHO"]


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count calls of functions of the package."""
    calls = [0]

    def note(frame: Any, event: str, _: object) -> None:
        calls[0] += event == "call" and "django_pglb" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def calls_of(client: Client) -> int:
    """Return how many calls a page of three reads makes, once everything is known that is remembered."""
    found = []
    for _ in range(6):
        with counting() as calls:
            assert Served(client.get("/many/")).reasons == {Reason.REPLICA}
        found.append(calls[0])
    return min(found)


def test_authorization_header_makes_no_page_slow(site: Site, user: User, settings: Any) -> None:
    """Later reads of a page take the first one's answer, although its user may yet be found."""
    browser = signed_in(user)
    browser.cookies.pop("pglb")
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    site.wait_until_online()
    site.forget_pointers()
    nobody, somebody, bearer = (calls_of(client) for client in (Client(), browser, Client(headers={"Authorization": "Bearer x"})))
    # Each but nobody asks the store about what it is known by.
    assert nobody < bearer < somebody + 10
    assert bearer < 1.5 * nobody
