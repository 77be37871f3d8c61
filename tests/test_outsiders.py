"""What a request of nobody costs: queries on the primary, bytes and keys in Redis, time. Counted on the real servers."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from django_pglb import runtime
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.identity import session_owners

from .fix_site import NAME, Served, Site
from .guestbook import views as pages
from .guestbook.models import Entry
from .test_read_your_writes import signed_in

pytestmark = pytest.mark.urls(__name__)

MADE_UP = "m" * 32
TOKEN = {"Authorization": "Bearer made-up"}
ROOT = Path(__file__).parent.parent
POSITION = "SELECT pg_current_wal_insert_lsn()"


# --- Views and middleware ---


class Refusing:
    """Answers in the view's place where the path says so: before the URL is looked up, or when the view is known."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return HttpResponse(status=429) if "throttled" in request.GET else self.get_response(request)

    def process_view(self, request: HttpRequest, *_: object) -> HttpResponse | None:
        return HttpResponse(status=403) if "refused" in request.GET else None


def elsewhere() -> None:
    """Write as another service does, on the same database and past this process's connections."""
    with psycopg.connect(**elsewhere_at, autocommit=True) as connection:
        connection.execute("INSERT INTO guestbook_entry (text, created) VALUES ('elsewhere', now())")


elsewhere_at: dict[str, Any] = {}


def call_service(request: HttpRequest) -> HttpResponse:
    elsewhere()
    return HttpResponse(status=int(request.GET.get("status", 200)))


async def call_service_async(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(elsewhere)
    return HttpResponse()


class CallService(View):
    def post(self, request: HttpRequest) -> HttpResponse:
        return call_service(request)


def call_service_and_raise(request: HttpRequest) -> HttpResponse:
    elsewhere()
    raise {"404": Http404, "403": PermissionDenied}[request.GET["raise"]]


def call_service_in_stream(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        elsewhere()
        yield "done"

    return StreamingHttpResponse(chunks())


def write_in_thread(request: HttpRequest) -> HttpResponse:
    def run() -> None:
        Entry.objects.create(text="in a thread")
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return HttpResponse()


def start_session(request: HttpRequest) -> HttpResponse:
    request.session["basket"] = [1]
    return HttpResponse()


def ask_for_token(request: HttpRequest) -> HttpResponse:
    """Look up the token that came, as APIs do."""
    is_known = Entry.objects.filter(text=request.headers["Authorization"]).exists()
    return HttpResponse(status=200 if is_known else int(request.GET.get("status", 401)))


def peek_at_session(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": request.session.get("_auth_user_id")})


VIEWS = [
    call_service,
    call_service_async,
    call_service_and_raise,
    call_service_in_stream,
    write_in_thread,
    start_session,
    ask_for_token,
    peek_at_session,
]
urlpatterns = [
    *(path(f"{view.__name__}/", view) for view in VIEWS),
    path("call_service_of_a_class/", csrf_exempt(CallService.as_view())),
    *(path(f"{name}/", getattr(pages, name)) for name in ("newest", "write", "nothing", "sign_in", "sign_out", "search")),
]


@pytest.fixture(autouse=True)
def _settings(site: Site, settings: Any) -> None:
    ours, *rest = settings.MIDDLEWARE
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    common = "django.middleware.common.CommonMiddleware"
    settings.MIDDLEWARE = [ours, common, *rest[:1], csrf, *rest[1:], f"{__name__}.Refusing"]
    parameters = connections["default"].settings_dict
    elsewhere_at.update(host=parameters["HOST"], port=parameters["PORT"], user=parameters["USER"], dbname=NAME)


# --- What it costs ---


def visitor(cookies: dict[str, str] | None = None, **arguments: Any) -> Client:
    client = Client(**arguments)
    for name, value in (cookies or {}).items():
        client.cookies[name] = value
    return client


def with_session(**arguments: Any) -> Client:
    return visitor({"sessionid": MADE_UP}, **arguments)


def with_both(**arguments: Any) -> Client:
    return with_session(headers=TOKEN, **arguments)


def with_token() -> Client:
    return visitor(headers=TOKEN)


def somebody() -> Client:
    return signed_in(User.objects.create_user("ann", password="secret"))


# Who asks, and what, for each row of the documentation's table.
REQUESTS: dict[str, tuple[Callable[[], Client], str, str]] = {
    "`GET` that reads, of nobody": (visitor, "get", "/newest/"),
    "`GET` that reads, of somebody signed in": (somebody, "get", "/newest/"),
    "`POST` to a 404": (with_both, "post", "/no/such/page/"),
    "`PUT` to an address that only lacks its slash": (with_both, "put", "/newest"),
    "`POST` refused by CSRF": (lambda: with_both(enforce_csrf_checks=True), "post", "/write/"),
    "`POST` refused before the URL is looked up": (with_both, "post", "/write/?throttled"),
    "`POST` refused when the view is known": (with_both, "post", "/write/?refused"),
    "`POST` that uses nothing, of nobody": (visitor, "post", "/nothing/"),
    "`POST` that uses nothing, with a made-up token": (with_token, "post", "/nothing/"),
    "`POST` that uses nothing, with a made-up session": (with_session, "post", "/nothing/"),
    "`POST` that uses nothing, of somebody signed in": (somebody, "post", "/nothing/"),
    "`POST` by `replica_reads()`, with a made-up session": (with_session, "post", "/search/"),
    "`POST` that reads, of nobody": (visitor, "post", "/newest/"),
    "`POST` that reads its made-up session": (with_session, "post", "/peek_at_session/"),
    "`POST` that looks up its made-up token, and answers 401 or 403": (with_token, "post", "/ask_for_token/?status=403"),
    "`POST` that writes, of nobody": (visitor, "post", "/write/"),
    "`POST` that writes, with a made-up session": (with_session, "post", "/write/"),
    "`POST` that writes, with a made-up token": (with_token, "post", "/write/"),
    "`POST` that starts a session, of nobody": (visitor, "post", "/start_session/"),
    "`POST` that starts a session, with a made-up one": (with_session, "post", "/start_session/"),
    "`POST` that writes, of somebody signed in": (somebody, "post", "/write/"),
}
ROWS = re.findall(r"^\| (.*?) \| (\d+) \| (\d+) \| (\d+) \|$", (ROOT / "docs" / "outsiders.md").read_text(), re.MULTILINE)
BYTES_PER_KEY = 256


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_cost_of_a_request(site: Site, row: tuple[str, ...]) -> None:
    """As the documentation has it: statements on the primary, how many of them ask for its position, and keys that are left in Redis."""
    make, method, path = REQUESTS[row[0]]
    client = make()
    client.cookies.pop("pglb", None)
    site.wait_until_seen()
    site.forget_pointers()
    connections.close_all()
    mark = site.log_end("default")
    getattr(client, method)(path)
    asked = [text for text in site.statements("default", mark) if not text.startswith(("BEGIN", "COMMIT"))]
    positions = [text for text in asked if text.startswith(POSITION)]
    keys = site.pointer_keys()
    assert (len(asked), len(positions), len(keys)) == tuple(int(number) for number in row[1:]), asked
    assert sum(int(site.redis.memory_usage(key)) for key in keys) <= len(keys) * BYTES_PER_KEY


def test_every_kind_of_request_is_documented() -> None:
    """And measured."""
    assert [row[0] for row in ROWS] == list(REQUESTS)


def test_flood_of_nobody_leaves_redis_as_it_was(site: Site) -> None:
    """Hundreds of requests with as many made-up sessions and tokens: not a byte, not a statement, and no connection to the primary."""
    Client().get("/newest/")
    connections.close_all()
    keys, mark = site.redis.dbsize(), site.log_end("default")
    for number in range(100):
        client = visitor({"sessionid": f"{number:032}"}, headers={"Authorization": f"Bearer {number}"})
        assert client.post("/no/such/page/").status_code == 404
        assert client.post("/nothing/").status_code == 200
        assert client.post("/write/?refused").status_code == 403
    assert (site.redis.dbsize(), site.statements("default", mark)) == (keys, [])
    assert connections["default"].connection is None


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "signed_cookies"])
@pytest.mark.parametrize("path", ["/write/", "/peek_at_session/", "/sign_out/"])
def test_nothing_is_kept_under_a_session_that_is_not_there(site: Site, settings: Any, engine: str, path: str) -> None:
    """Wherever sessions live, and whether the view looks at it or not."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    visitor({"sessionid": MADE_UP}).post(path)
    assert runtime.get_runtime().load("default", [("session", MADE_UP)])[0].pointer is None
    assert [key for key in site.pointer_keys() if key.startswith("pglb")] == []


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_session_key_that_no_row_can_have_is_nobodys(site: Site, settings: Any, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """The database refuses to look for a NUL. That is no trouble of the site's, and keeps no page on the primary."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    outsider = visitor(raise_request_exception=False)
    outsider.cookies.load(f'sessionid="{MADE_UP}\\000"')
    keys, mark = site.redis.dbsize(), site.log_end("default")
    assert outsider.post("/nothing/").status_code == 200
    assert (site.redis.dbsize(), site.statements("default", mark)) == (keys, [])
    assert Served(outsider.get("/newest/")).reasons == {Reason.REPLICA}
    assert outsider.post("/write/").status_code == 200
    assert site.pointer_keys() == []
    # As without this package.
    assert outsider.get("/peek_at_session/").status_code == 500
    assert not [record for record in caplog.records if record.name.startswith("django_pglb")]


@pytest.mark.parametrize("key", [MADE_UP, "short", "1"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_write_keeps_nothing_under_a_session_that_is_not_there(site: Site, method: str, key: str) -> None:
    """What counts is who is known, not the method. Some keys are not even looked for."""
    response = getattr(visitor({"sessionid": key}), method)("/write/")
    assert (site.pointer_keys(), "pglb" in response.cookies) == ([], True)


def test_session_that_was_started_is_bound(site: Site) -> None:
    """Also by the request that starts it, and by later ones that do not touch it: nobody is signed in."""
    browser = Client()
    browser.post("/start_session/")
    site.pause_replay()
    del browser.cookies["pglb"]
    browser.post("/call_service/")
    del browser.cookies["pglb"]
    response = browser.get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": "elsewhere"}, {Reason.BEHIND})


def test_session_that_was_ended_is_bound(site: Site, user: User) -> None:
    """Whoever comes with its key again must not find it on a replica that lags."""
    browser = signed_in(user)
    key = browser.cookies["sessionid"].value
    site.wait_until_seen()
    site.pause_replay()
    browser.post("/sign_out/")
    session_owners.clear()
    response = visitor({"sessionid": key}).get("/peek_at_session/")
    assert (response.json(), Served(response).reasons) == ({"user": None}, {Reason.BEHIND})


# --- What must be seen all the same ---


WAYS = {
    "a function": "/call_service/",
    "a class": "/call_service_of_a_class/",
    "a coroutine": "/call_service_async/",
    "an error page of its own": "/call_service/?status=404",
    "Http404": "/call_service_and_raise/?raise=404",
    "PermissionDenied": "/call_service_and_raise/?raise=403",
    "a stream": "/call_service_in_stream/",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_view_of_a_known_user_that_writes_through_another_service_is_covered(site: Site, user: User, way: str, is_async: bool) -> None:
    """It uses no connection itself, nor the session; whose that is, this process has never seen."""
    browser = signed_in(user)
    site.pause_replay()
    session_owners.clear()
    client = AsyncClient() if is_async else Client()
    client.cookies = browser.cookies
    if is_async and way == "a stream":
        pytest.skip("a stream of a generator is synchronous")
    if is_async:
        asyncio.run(client.post(WAYS[way]))
    else:
        response = client.post(WAYS[way])
        assert not response.streaming or b"".join(response) == b"done"
    newest = signed_in(user).get("/newest/")
    assert (newest.json(), Served(newest).aliases) == ({"text": "elsewhere"}, {"default"})


def test_thread_of_a_view_is_covered_whoever_asks(site: Site) -> None:
    """This process has used the primary outside requests meanwhile."""
    site.pause_replay()
    browser = Client()
    browser.post("/write_in_thread/")
    response = browser.get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": "in a thread"}, {Reason.BEHIND})
    assert site.pointer_keys() == []


# --- While the primary is in trouble ---


def seconds(call: Callable[[], Any]) -> float:
    """Return how long `call` takes in a thread of its own, as in a server; fail if it hangs."""

    def run() -> float:
        start = time.monotonic()
        try:
            call()
        finally:
            took = time.monotonic() - start
            connections.close_all()
        return took

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(run).result(timeout=60)
    finally:
        pool.shutdown(wait=False)


@pytest.fixture
def known(site: Site, user: User, settings: Any) -> Client:
    """A browser whose session every replica has, on a site whose probes take a second at most."""
    browser = signed_in(user)
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_TIMEOUT": 1}}
    site.wait_until_online()
    site.wait_until_seen()
    return browser


@pytest.mark.parametrize("trouble", ["dead", "frozen"])
def test_nothing_is_asked_of_a_primary_that_is_known_to_be_down(site: Site, known: Client, trouble: str) -> None:
    """A request that used nothing is answered as ever, whoever sent it, and nobody is pinned to what is down."""
    primary = site.cluster.primary
    primary.kill() if trouble == "dead" else primary.freeze()
    site.wait_for_states(default=HostState.OFFLINE)
    assert max(seconds(lambda: visitor().post("/nothing/")), seconds(lambda: known.post("/nothing/"))) < 0.4
    response = known.get("/newest/")
    assert (response.status_code, Served(response).reasons) == (200, {Reason.REPLICA})


@pytest.mark.parametrize("has_connection", [True, False], ids=["connected", "not connected"])
def test_position_is_waited_for_no_longer_than_a_probe(site: Site, known: Client, settings: Any, has_connection: bool) -> None:
    """Of a primary that has frozen and is not known to have: what the request may have written is pinned then."""
    runtime.get_runtime().checker.wait_until_known(10, "default")

    def post() -> None:
        if has_connection:
            connections["default"].ensure_connection()
        site.cluster.primary.freeze()
        began.append(time.monotonic())
        known.post("/nothing/")
        took.append(time.monotonic() - began[0])

    began: list[float] = []
    took: list[float] = []
    seconds(post)
    assert took[0] < 2
