"""PGLB_POINTER_HEADER: a client without cookies and without a stable token carries its pointer itself. Value, host and reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core import signing
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings

from django_pglb.carriers import _texts
from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import Bound
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.stores.carried import sign, unsign

from .fix_site import Served, Site
from .guestbook.models import Entry

HEADER = "X-PGLB-Pointer"


@pytest.fixture
def carried(site: Site, settings: Any) -> Site:
    """The site with the header switched on, replicas that know all there is, and nothing replayed from now on."""
    settings.PGLB_POINTER_HEADER = HEADER
    site.wait_until_online()
    site.forget_pointers()
    site.pause_replay()
    return site


def write(text: str, **headers: str) -> str:
    """Write as a client that nothing is known of, and return the pointer that it is given."""
    return str(Client().post("/write/", {"text": text}, headers=headers).headers[HEADER])


def read(pointer: str | None = None) -> tuple[str | None, set[str], set[Reason]]:
    """The newest text, and who served it and why, for a client that carries nothing but `pointer`."""
    response = Client().get("/newest/", headers={} if pointer is None else {HEADER: pointer})
    served = Served(response)
    return response.json()["text"], served.aliases - {"replica1", "replica2"} or {"a replica"}, served.reasons


FROM_REPLICA = {"a replica"}, {Reason.REPLICA}
FROM_PRIMARY = {"default"}, {Reason.BEHIND}


def test_client_that_carries_its_pointer_sees_its_write(carried: Site) -> None:
    """The response to the write hands it out; whoever carries it reads the primary, and after replay a replica again."""
    pointer = write("mine")
    assert read(pointer) == ("mine", *FROM_PRIMARY)
    assert read() == (None, *FROM_REPLICA)
    for replica in carried.cluster.replicas:
        replica.resume_replay()
    carried.wait_until_seen()
    assert read(pointer) == ("mine", *FROM_REPLICA)


def test_get_that_writes_hands_out_a_pointer(carried: Site) -> None:
    """What counts is what was written, not the method."""
    pointer = Client().get("/write/?text=mine").headers[HEADER]
    assert read(pointer) == ("mine", *FROM_PRIMARY)


def test_several_pointers_are_all_honoured(carried: Site) -> None:
    """A client with parallel requests sends what it has, in any order; one that is not ours spoils none of the others."""
    for replica in carried.cluster.replicas:
        replica.resume_replay()
    earlier = write("earlier")
    carried.pause_replay()
    later = write("later")
    assert read(earlier) == ("earlier", *FROM_REPLICA)
    for value in (f"{earlier}, {later}", f"{later},{earlier}", f"garbage , {later}", f",{later},,"):
        assert read(value) == ("later", *FROM_PRIMARY)


def elsewhere_signed(pointer: str) -> str:
    bounds = unsign(pointer, max_age=60)
    with override_settings(SECRET_KEY="other"):
        return sign(bounds)


def expired(pointer: str) -> str:
    text = signing.TimestampSigner(salt="django_pglb.pointer").unsign(pointer)

    class Earlier(signing.TimestampSigner):
        def timestamp(self) -> str:
            return signing.b62_encode(int(time.time()) - 3700)

    return Earlier(salt="django_pglb.pointer").sign(text)


WORTHLESS: dict[str, Callable[[str], str]] = {
    "forged": lambda pointer: pointer[:-1] + ("A" if pointer[-1] != "A" else "B"),
    "of another site": elsewhere_signed,
    "expired": expired,
    "of an unknown cluster": lambda pointer: sign({"elsewhere": unsign(pointer, max_age=60)["default"]}),
    "too many": lambda pointer: ",".join([pointer] * 80),
    "not text": lambda _: "\xff\x80" * 9,
}


@pytest.mark.parametrize("kind", WORTHLESS)
def test_pointer_that_is_worth_nothing_is_as_good_as_absent(carried: Site, kind: str) -> None:
    """It binds nobody, and fails nothing."""
    assert read(WORTHLESS[kind](write("x"))) == (None, *FROM_REPLICA)


def test_thousands_of_pieces_cost_no_signature(rf: RequestFactory) -> None:
    """Whoever sends them would have us compute one for each."""
    request = rf.get("/", headers={HEADER: "a:b:c," * 1300})
    assert list(_texts(request, HEADER)) == [None]  # the cookie, which it does not have


def test_pointer_out_covers_what_came_in(carried: Site) -> None:
    """A client keeps only the latest one: a pin that it came with is still in it."""
    pin = Bound(None, time.time() + 30)
    bound = unsign(write("x", **{HEADER: sign({"default": pin})}), max_age=60)["default"]
    assert bound.pointer is not None
    assert bound.pinned_until == pytest.approx(pin.pinned_until, abs=0.01)


def test_header_needs_no_cookie_and_says_what_the_cookie_says(carried: Site, settings: Any) -> None:
    """With COOKIE = False the header alone carries; with both, a client may keep either."""
    response = Client().post("/write/", {"text": "x"})
    assert response.cookies["pglb"].value == response.headers[HEADER]
    settings.PGLB = {"default": {**settings.PGLB["default"], "COOKIE": False}}
    response = Client().post("/write/", {"text": "x"})
    assert ("pglb" in response.cookies, HEADER in response.headers) == (False, True)


def test_pages_that_write_nothing_hand_out_nothing(carried: Site) -> None:
    """They are as cacheable as without the package, also for a client that carries a pointer."""
    headers = Client().get("/newest/", headers={HEADER: write("x")}).headers
    assert (HEADER in headers, "Cache-Control" in headers, "Vary" in headers) == (False, False, False)


@pytest.mark.parametrize("door", ["header", "cookie"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, {"private"}), ("public, max-age=60", {"private", "max-age=60"}), ("no-store", {"private", "no-store"})],
)
def test_no_shared_cache_keeps_a_pointer(
    site: Site, rf: RequestFactory, settings: Any, door: str, said: str | None, expected: set[str]
) -> None:
    """Whoever got it from there would lose their own to it; so whatever the view says, the response is its client's alone."""
    if door == "header":
        settings.PGLB = {"default": {**settings.PGLB["default"], "COOKIE": False}}
        settings.PGLB_POINTER_HEADER = HEADER

    def view(request: HttpRequest) -> HttpResponse:
        Entry.objects.create(text="x")
        return HttpResponse(headers={} if said is None else {"Cache-Control": said})

    response = LoadBalancingMiddleware(view)(rf.get("/"))
    assert isinstance(response, HttpResponse)
    assert (HEADER in response.headers, "pglb" in response.cookies) == (door == "header", door == "cookie")
    assert set(response.headers["Cache-Control"].split(", ")) == expected


def test_page_cache_above_ours_keeps_nobodys_pointer(site: Site, settings: Any) -> None:
    """Django says that it comes first; without our word it would give the first writer's cookie to everybody."""
    settings.CACHES = {**settings.CACHES, "pages": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "pages"}}
    settings.CACHE_MIDDLEWARE_ALIAS = "pages"
    caches["pages"].clear()
    update, fetch = (f"django.middleware.cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom"))
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE, fetch]
    first, second = (Client().get("/write/?text=x").cookies["pglb"].value for _ in range(2))
    assert first != second
    assert Entry.objects.count() == 2


def test_header_is_off_unless_asked_for(site: Site) -> None:
    """By default nothing goes out, and what comes in binds nobody."""
    site.pause_replay()
    response = Client().post("/write/", {"text": "x"})
    assert HEADER not in response.headers
    assert read(response.cookies["pglb"].value) == (None, *FROM_REPLICA)


def test_header_is_off_with_everything_else(site: Site, settings: Any) -> None:
    """PGLB_ENABLED = False."""
    settings.PGLB_ENABLED, settings.PGLB_POINTER_HEADER = False, HEADER
    response = Client().post("/write/", {"text": "x"})
    assert (HEADER in response.headers, "Cache-Control" in response.headers) == (False, False)
