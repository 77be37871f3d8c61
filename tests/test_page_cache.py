"""Cached pages: nobody gets one that lacks what they wrote, and everybody else gets it from the cache. Value, host and reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.http import HttpRequest
from django.test import AsyncClient, Client, modify_settings

from django_pglb import routing_session
from django_pglb.core.decision import Reason
from django_pglb.core.lsn import ANYBODY, Pointer, covers
from django_pglb.core.routing_session import Bound
from django_pglb.identity import session_owners, token_owners
from django_pglb.stores.carried import sign

from .api.bearer import new_token
from .fix_site import Served, Site
from .guestbook.models import Entry
from .test_costs import redis_commands
from .test_read_your_writes import signed_in

pytestmark = pytest.mark.urls("tests.pages")

# What an answer tells of itself: the text, who served it, and why. From the cache, nobody read anything for it.
Answer = tuple[str, set[str], set[Reason]]
CACHED: tuple[set[str], set[Reason]] = (set(), set())
FROM_PRIMARY = {"default"}, {Reason.BEHIND}
FROM_REPLICA = {"a replica"}, {Reason.REPLICA}
STALE = {"a replica"}, {Reason.STALE_ALLOWED}


@pytest.fixture
def paged(site: Site, settings: Any) -> Site:
    """The site with an empty cache for pages, and replicas that know all there is and will replay no more."""
    settings.CACHES = {**settings.CACHES, "pages": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "pages"}}
    caches["pages"].clear()
    site.wait_until_online()
    site.forget_pointers()
    site.pause_replay()
    return site


def answer(response: Any) -> Answer:
    served = Served(response)
    hosts = {"a replica" if alias.startswith("replica") else alias for alias in served.aliases}
    return response.content.decode(), hosts, served.reasons


def get(client: Client, path: str = "/page/", **headers: str) -> Answer:
    return answer(client.get(path, headers=headers))


def writer(text: str, **headers: str) -> Client:
    """A browser that has written."""
    client = Client(headers=headers)
    client.post("/write/", {"text": text})
    return client


def again(client: Client) -> Client:
    """The same browser on a site whose middleware has changed."""
    browser = Client()
    browser.cookies = client.cookies
    return browser


def known(user: User, site: Site) -> Client:
    """A browser whose session this process and the replicas know, and who is bound by nothing."""
    for replica in site.cluster.replicas:
        replica.resume_replay()
    browser = signed_in(user)
    del browser.cookies["pglb"]
    site.wait_until_online()
    site.forget_pointers()
    site.pause_replay()
    return browser


def test_page_that_lacks_ones_own_write_is_not_served(paged: Site) -> None:
    """It is made anew for its writer, from the primary, and from then on everybody gets that one."""
    ann = writer("mine")
    assert get(Client()) == ("", *FROM_REPLICA)
    assert get(Client()) == ("", *CACHED)
    assert get(ann) == ("mine", *FROM_PRIMARY)
    assert get(ann) == get(Client()) == ("mine", *CACHED)


def test_djangos_own_page_cache_serves_a_page_without_ones_own_write(paged: Site) -> None:
    """The control: on the same site, with the same pointers."""
    ann = writer("mine")
    assert get(Client(), "/django_page/") == ("", *FROM_REPLICA)
    assert get(ann, "/django_page/") == ("", *CACHED)


@pytest.mark.parametrize("path", ["/late/", "/inner/"])
def test_what_is_read_late_or_inside_counts_too(paged: Site, path: str) -> None:
    """A template's queries run after the view, and an inner unit of work's are the request's."""
    ann = writer("mine")
    assert get(Client(), path) == ("", *FROM_REPLICA)
    assert get(ann, path) == ("mine", *FROM_PRIMARY)
    assert get(ann, path) == ("mine", *CACHED)


def in_a_tenants_unit(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Middleware that opens a unit of work around the views."""

    def middleware(request: HttpRequest) -> Any:
        with routing_session(identity=("tenant", "1")):
            return get_response(request)

    return middleware


def test_unit_of_work_around_the_view_counts_too(paged: Site, settings: Any) -> None:
    """Whom it acts for is served no older page, and a page that was read or written in it is no page of a request that did nothing."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.in_a_tenants_unit"]
    assert get(Client()) == ("", *FROM_REPLICA)
    assert get(Client()) == ("", *CACHED)
    with routing_session(identity=("tenant", "1")):
        Entry.objects.create(text="the tenant's")
    assert get(Client()) == ("the tenant's", *FROM_PRIMARY)
    assert get(Client()) == ("the tenant's", *CACHED)
    assert [get(Client(), "/counted/")[0] for _ in range(2)] == ["2", "3"]


def test_whom_only_the_store_knows_is_not_served_an_older_page(user: Any, paged: Site) -> None:
    """By the user, whose other device has written: the session is looked at before the page is served."""
    for replica in paged.cluster.replicas:
        replica.resume_replay()
    phone, laptop = signed_in(user), signed_in(user)
    paged.pause_replay()
    laptop.post("/write/", {"text": "from the laptop"})
    assert get(Client()) == ("", *FROM_REPLICA)
    assert get(phone) == ("from the laptop", *FROM_PRIMARY)


def test_token_that_this_process_has_not_met_is_served_no_page(user: Any, paged: Site) -> None:
    """Its user has written with another token, and only the view can tell that they are one; after that the page is theirs."""
    phone, laptop = (Client(headers={"Authorization": f"Bearer {new_token(user, number)}"}) for number in (1, 2))
    assert get(phone, "/of_bearer/") == ("", *FROM_REPLICA)
    assert get(phone, "/of_bearer/") == ("", *CACHED)
    laptop.post("/of_bearer/")
    token_owners.clear()
    assert get(phone, "/of_bearer/") == ("written", {"a replica", "default"}, {Reason.REPLICA, Reason.BEHIND})
    assert get(phone, "/of_bearer/") == ("written", *FROM_PRIMARY)
    assert get(phone, "/of_bearer/") == ("written", *CACHED)


def test_page_is_served_to_those_who_wrote_before_it(paged: Site) -> None:
    """What one writer's pointer has proved holds for everybody with an earlier one, and for nobody with a later one."""
    first, second = writer("first"), writer("second")
    assert get(second) == ("second", *FROM_PRIMARY)
    third = writer("third")
    assert get(first) == ("second", *CACHED)
    assert get(third) == ("third", *FROM_PRIMARY)


@pytest.mark.parametrize(
    "bound",
    [Bound(None, time.time() + 3600), Bound(Pointer(99, 8))],
    ids=["pinned", "of another timeline"],
)
def test_whose_pointer_nothing_can_prove_is_served_no_page(paged: Site, bound: Bound) -> None:
    """A pin, and a position on another timeline, say primary only."""
    ann = writer("mine")
    assert get(ann) == ("mine", *FROM_PRIMARY)
    bob = Client()
    bob.cookies["pglb"] = sign({"default": bound})
    assert get(bob) == ("mine", *FROM_PRIMARY)


def test_stale_page_is_for_those_who_are_bound_by_nothing(paged: Site) -> None:
    """A page made under use_replicas() shows nothing for sure, whoever it was made for, and whatever else was read on it."""
    ann = writer("mine")
    assert [get(ann, "/stale_inside/") for _ in range(3)] == [("", *STALE)] * 3
    assert get(Client(), "/stale_inside/") == ("", *CACHED)
    partly_stale = ("mine of 0", {"a replica", "default"}, {Reason.BEHIND, Reason.STALE_ALLOWED})
    assert [get(ann, "/partly_stale/") for _ in range(3)] == [partly_stale] * 3
    assert get(Client(), "/partly_stale/") == ("mine of 0", *CACHED)


def test_stale_page_is_for_everybody_where_stale_is_fine(paged: Site) -> None:
    """With use_replicas() around the cached view even its writer takes what the cache has."""
    ann = writer("mine")
    assert get(ann, "/stale_outside/") == ("", *STALE)
    assert get(ann, "/stale_outside/") == ("", *CACHED)


def test_page_from_the_primary_is_worth_what_its_reader_is_bound_by(paged: Site) -> None:
    """use_primary() asks for no pointer; a reader who was refused a page has one."""
    ann = writer("mine")
    assert get(Client(), "/primary_inside/")[0] == "mine"
    assert get(ann, "/primary_inside/") == ("mine", {"default"}, {Reason.FORCED_PRIMARY})
    assert get(ann, "/primary_inside/") == ("mine", *CACHED)


def test_page_of_a_request_that_wrote_is_not_stored(paged: Site) -> None:
    """It may show what is not committed, and what it wrote has no position yet."""
    assert [get(Client(), "/counted/")[0] for _ in range(2)] == ["1", "2"]


def test_page_that_reads_nothing_is_for_everybody(paged: Site) -> None:
    """Nobody's writes can be missing there."""
    assert get(Client(), "/empty/") == get(writer("x"), "/empty/") == ("nothing read", *CACHED)


def test_page_that_django_stored_is_for_those_who_are_bound_by_nothing(paged: Site, settings: Any) -> None:
    """As right after the change from Django's own classes: both find the same pages."""
    ann = writer("mine")
    settings.CACHE_MIDDLEWARE_ALIAS = "pages"
    with modify_settings(MIDDLEWARE={"append": "django.middleware.cache.CacheMiddleware"}):
        assert get(Client(), "/uncached/") == ("", *FROM_REPLICA)
        assert get(again(ann), "/uncached/") == ("", *CACHED)
    with modify_settings(MIDDLEWARE={"append": "django_pglb.page_cache.CacheMiddleware"}):
        assert get(Client(), "/uncached/") == ("", *CACHED)
        assert get(again(ann), "/uncached/") == ("mine", *FROM_PRIMARY)


def test_middleware_caches_the_whole_site(paged: Site, settings: Any) -> None:
    """In the two places that Django names, below ours."""
    settings.CACHE_MIDDLEWARE_ALIAS = "pages"
    ours, *rest = settings.MIDDLEWARE
    update, fetch = (f"django_pglb.page_cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom"))
    settings.MIDDLEWARE = [ours, update, *rest, fetch]
    ann = writer("mine")
    assert get(Client(), "/uncached/") == ("", *FROM_REPLICA)
    assert get(Client(), "/uncached/") == ("", *CACHED)
    assert get(ann, "/uncached/") == ("mine", *FROM_PRIMARY)
    assert get(ann, "/uncached/") == ("mine", *CACHED)


def test_middleware_above_ours_stores_nothing(paged: Site, settings: Any) -> None:
    """It cannot tell what a page shows, and so not for whom the page is good."""
    settings.CACHE_MIDDLEWARE_ALIAS = "pages"
    update, fetch = (f"django_pglb.page_cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom"))
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE, fetch]
    for _ in range(2):
        assert get(Client(), "/uncached/") == ("", *FROM_REPLICA)


def test_async_view_is_cached_by_the_same_rules(user: Any, paged: Site) -> None:
    """Also for a reader whose session must be loaded first, of which the event loop must know nothing."""
    for replica in paged.cluster.replicas:
        replica.resume_replay()
    browser = signed_in(user)
    paged.pause_replay()

    async def visit() -> list[Answer]:
        ann, stranger = AsyncClient(), AsyncClient()
        ann.cookies["sessionid"] = browser.cookies["sessionid"].value
        await ann.post("/write_async/", {"text": "mine"})
        first = [answer(await stranger.get("/async_page/")) for _ in range(2)]
        session_owners.clear()
        return [*first, *[answer(await client.get("/async_page/")) for client in (ann, ann, stranger)]]

    expected = [("", *FROM_REPLICA), ("", *CACHED), ("mine", *FROM_PRIMARY), ("mine", *CACHED), ("mine", *CACHED)]
    assert asyncio.run(visit()) == expected


@pytest.mark.parametrize("on_store_error", ["primary", "replica"])
def test_page_while_the_store_is_down(user: Any, paged: Site, settings: Any, on_store_error: str) -> None:
    """Who cannot be told what binds them gets no page, unless the site prefers that; what they then read is for the unbound only."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "ON_STORE_ERROR": on_store_error}}
    bob = known(user, paged)
    ann = writer("mine")
    paged.cluster.redis.kill()
    found = [get(bob), get(bob)]
    if on_store_error == "primary":
        assert found == [("mine", {"default"}, {Reason.STORE_ERROR})] * 2
    else:
        assert found == [("", *FROM_REPLICA), ("", *CACHED)]
        assert get(ann) == ("mine", *FROM_PRIMARY)


def test_cost_of_a_cached_page_for_a_reader_who_is_known(user: Any, paged: Site) -> None:
    """Redis is asked once, and no database; a reader of whom nothing is known costs neither."""
    bob = known(user, paged)
    assert get(Client()) == ("", *FROM_REPLICA)
    marks = {alias: paged.log_end(alias) for alias in ("default", "replica1", "replica2")}
    with redis_commands(paged) as commands:
        assert get(Client()) == ("", *CACHED)
        paged.redis.echo("known")
        assert get(bob) == ("", *CACHED)
    assert [command.split()[0] for command in commands] == ["ECHO", "MGET"]
    assert all(paged.statements(alias, mark) == [] for alias, mark in marks.items())


def test_nobody_goes_back_in_time_from_a_cached_page(user: Any, paged: Site, settings: Any) -> None:
    """In monotonic mode a page that came from the cache was seen, up to what its own reads could see."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    bob = known(user, paged)
    one, _ = paged.cluster.replicas
    Entry.objects.create(text="new")
    one.resume_replay()
    one.wait_for_lsn(paged.cluster.primary.write_lsn)
    for _ in range(200):
        # Until it has been made from the replica that has it: strangers remember nothing, and are not bound.
        caches["pages"].clear()
        if get(Client()) == ("new", *FROM_REPLICA):
            break
    assert get(bob) == ("new", *CACHED)
    assert {get(bob, "/uncached/")[0] for _ in range(30)} == {"new"}
    assert {get(Client(), "/uncached/")[0] for _ in range(200)} == {"new", ""}


def test_page_cache_is_djangos_own_while_everything_is_off(paged: Site, settings: Any) -> None:
    """PGLB_ENABLED = False."""
    settings.PGLB_ENABLED = False
    assert get(Client())[0] == ""
    writer("mine")
    assert get(Client())[0] == ""


@pytest.mark.parametrize(
    ("shown", "wanted", "expected"),
    [
        (None, None, True),
        (Pointer(1, 8), None, True),
        (None, Pointer(1, 8), False),
        (Pointer(1, 8), Pointer(1, 8), True),
        (Pointer(1, 16), Pointer(1, 8), True),
        (Pointer(1, 8), Pointer(1, 16), False),
        (Pointer(2, 16), Pointer(1, 8), False),
        (Pointer(1, 8), Pointer(1, 8 | 3), False),
        (Pointer(1, 8 | 3), Pointer(1, 8 | 3), True),
        (Pointer(1, 8 | 3), Pointer(1, 8), True),
        (Pointer(1, 8 | 3), Pointer(1, 8 | 5), False),
        (Pointer(1, 8 | ANYBODY), Pointer(1, 8 | 3), False),
        (Pointer(1, 16), Pointer(1, 8 | 3), True),
    ],
)
def test_what_a_pointer_covers(shown: Pointer | None, wanted: Pointer | None, expected: bool) -> None:
    """At least the position, on the same timeline; beyond it only what is bound by the very same pointer."""
    assert covers(shown, wanted) is expected
