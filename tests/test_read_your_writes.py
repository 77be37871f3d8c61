"""The promise: whoever got an answer to a write sees it on every later read. Value, host and reason are asserted each time."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core import signing
from django.db import DatabaseError, connections
from django.http import HttpResponse
from django.test import Client, RequestFactory

from django_pglb import runtime
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState
from django_pglb.middleware import LoadBalancingMiddleware

from .fix_site import NAME, Served, Site
from .guestbook.models import Entry


def signed_in(user: User) -> Client:
    """A browser that has logged in through the site."""
    client = Client()
    client.post("/sign_in/", {"username": user.username, "password": "secret"})
    return client


def test_reads_go_to_a_replica(site: Site, browser: Client) -> None:
    """A visitor who wrote nothing is answered by one replica, as that server itself can tell."""
    marks = {alias: site.log_end(alias) for alias in ("default", "replica1", "replica2")}
    served = Served(browser.get("/newest/"))
    assert served.reasons == {Reason.REPLICA}
    (alias,) = served.aliases
    assert [text for text in site.statements(alias, marks[alias]) if "guestbook_entry" in text]
    assert site.statements("default", marks["default"]) == []


def test_own_write_is_read_from_the_primary_until_a_replica_has_it(site: Site, browser: Client) -> None:
    """With replay paused the writer reads the primary (behind); a stranger reads a replica; after replay so does the writer."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    browser.post("/write/", {"text": "mine"})
    response = browser.get("/newest/")
    assert response.json() == {"text": "mine"}
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})
    stranger = Client().get("/newest/")
    assert stranger.json() == {"text": None}
    assert Served(stranger).reasons == {Reason.REPLICA}
    for replica in site.cluster.replicas:
        replica.resume_replay()
    site.wait_until_seen()
    response = browser.get("/newest/")
    assert response.json() == {"text": "mine"}
    assert Served(response).reasons == {Reason.REPLICA}


def test_copy_on_the_right_server_is_not_read_from(site: Site, browser: Client) -> None:
    """Both replicas' aliases name last year's database: whatever its server has replayed, it has no write of this year's."""
    primary = site.host("default")
    primary.ask("CREATE DATABASE site_2024")
    replicas: list[Any] = [connections["replica1"], connections["replica2"]]
    try:
        with primary.connect(dbname="site_2024") as connection:
            connection.execute("CREATE TABLE guestbook_entry (id bigint, text text, author_id bigint, created timestamptz)")
        site.cluster.wait_until_replicas_caught_up()
        for replica in replicas:
            replica.settings_dict["NAME"] = "site_2024"
        runtime.reset()
        runtime.get_runtime().wait_for_first_look("default")
        site.wait_for_states(replica1=HostState.DIVERGED, replica2=HostState.DIVERGED)
        browser.post("/write/", {"text": "mine"})
        response = browser.get("/newest/")
        assert (response.json(), Served(response).aliases, Served(response).reasons) == ({"text": "mine"}, {"default"}, {Reason.NO_REPLICA})
    finally:
        for replica in replicas:
            replica.close()
            replica.settings_dict["NAME"] = NAME
        runtime.reset()
        primary.ask("DROP DATABASE site_2024 WITH (FORCE)")


@pytest.mark.parametrize("path", ["/write/?text=new", "/write_raw/?text=new", "/write_on_commit/?text=new"])
def test_writes_of_a_get_request_bind_too(site: Site, browser: Client, path: str) -> None:
    """What counts is what was written, not the method: ORM, CTEs in raw SQL, and on_commit hooks."""
    site.cluster.replicas[0].pause_replay()
    site.cluster.replicas[1].pause_replay()
    browser.get(path)
    response = browser.get("/newest/")
    assert response.json() == {"text": "new"}
    assert Served(response).reasons == {Reason.BEHIND}


def test_write_before_a_crash_of_the_view_binds(site: Site) -> None:
    """A view that committed and then raised has still written."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    browser = Client(raise_request_exception=False)
    assert browser.get("/write_and_fail/?text=kept").status_code == 500
    response = browser.get("/newest/")
    assert response.json() == {"text": "kept"}
    assert Served(response).reasons == {Reason.BEHIND}


@pytest.mark.parametrize("changes", [[], ["/change_password/"]], ids=["after the login", "after a change of password"])
def test_use_replicas_signs_nobody_out(site: Site, user: User, changes: list[str]) -> None:
    """Stale is fine for the page, not for the session and the user behind it: Django would delete the session for good."""
    if changes:
        browser = signed_in(user)
        site.cluster.wait_until_replicas_caught_up()
    for replica in site.cluster.replicas:
        replica.pause_replay()
    if not changes:
        browser = signed_in(user)
    for path in changes:
        browser.post(path)
    browser.post("/write/", {"text": "x"})
    response = browser.get("/whoami_stale/")
    assert response.json() == {"user": "ann", "count": 0}
    assert Served(response).reasons == {Reason.BEHIND, Reason.STALE_ALLOWED}
    with connections["default"].execute_wrapper(commented), connections["replica1"].execute_wrapper(commented):
        assert browser.get("/whoami_stale/").json() == {"user": "ann", "count": 0}
    assert browser.get("/whoami/").json() == {"user": "ann"}


def commented(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Do what packages do that trace statements."""
    return execute(f"{sql} /* traced */", params, many, context)


def test_cookie_of_an_unknown_session_is_left_alone(site: Site, browser: Client) -> None:
    """A page that has nothing to do with the session answers as it would without us, whatever the look at the session found."""
    browser.cookies["sessionid"] = "u" * 32
    response = browser.get("/newest/")
    assert Served(response).reasons == {Reason.REPLICA}
    assert "sessionid" not in response.cookies
    assert "Vary" not in response.headers


class BrokenSession(SessionStore):
    """A session that cannot be loaded."""

    def load(self) -> dict[str, Any]:
        raise DatabaseError("gone")


def test_write_is_saved_although_the_session_cannot_be_loaded(site: Site, rf: RequestFactory) -> None:
    """The response stands, and whoever is known without the session is bound, by store and cookie."""

    def view(request: Any) -> HttpResponse:
        request.session = BrokenSession("k" * 32)
        Entry.objects.create(text="x")
        return HttpResponse()

    rf.cookies["sessionid"] = "k" * 32
    response = LoadBalancingMiddleware(view)(rf.post("/"))
    assert response.cookies["pglb"].value
    assert runtime.get_runtime().load("default", [("session", "k" * 32)])[0].pointer is not None


def test_write_is_saved_although_nobody_turns_the_error_into_a_response(site: Site, rf: RequestFactory) -> None:
    """As with DEBUG_PROPAGATE_EXCEPTIONS, or when a worker is told to end."""

    def view(request: Any) -> HttpResponse:
        Entry.objects.create(text="x")
        raise RuntimeError("after the write")

    with pytest.raises(RuntimeError, match="after the write"):
        LoadBalancingMiddleware(view)(rf.get("/", headers={"Authorization": "Token t"}))
    assert runtime.get_runtime().load("default", [("authorization", "Token t")])[0].pointer is not None


def test_api_client_is_bound_by_its_authorization_header(site: Site) -> None:
    """Without any cookie the Authorization header identifies; another token is not bound."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    Client().post("/write/", {"text": "by token"}, headers={"Authorization": "Token one"})
    response = Client().get("/newest/", headers={"Authorization": "Token one"})
    assert response.json() == {"text": "by token"}
    assert Served(response).reasons == {Reason.BEHIND}
    other = Client().get("/newest/", headers={"Authorization": "Token two"})
    assert (other.json(), Served(other).reasons) == ({"text": None}, {Reason.REPLICA})


def test_browser_carries_its_pointer_when_the_store_forgets(site: Site, browser: Client) -> None:
    """The signed cookie alone binds: Redis was emptied, and the browser has no session."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    browser.post("/write/", {"text": "carried"})
    site.redis.flushall()
    response = browser.get("/newest/")
    assert response.json() == {"text": "carried"}
    assert Served(response).reasons == {Reason.BEHIND}


def test_forged_cookie_is_as_good_as_absent(site: Site, browser: Client) -> None:
    """A pointer signed by somebody else binds nobody, and raises nothing."""
    browser.cookies["pglb"] = signing.TimestampSigner(key="other", salt="django_pglb.pointer").sign("default=" + "F" * 24 + "9" * 26)
    assert Served(browser.get("/newest/")).reasons == {Reason.REPLICA}
    browser.cookies["pglb"] = "x" * 5000
    assert Served(browser.get("/newest/")).reasons == {Reason.REPLICA}


def test_cookie_has_the_session_cookies_attributes(site: Site, browser: Client, settings: Any) -> None:
    """HttpOnly always; the rest as the site set it for sessions."""
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    morsel = browser.post("/write/", {"text": "x"}).cookies["pglb"]
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["samesite"] == "Strict"
    assert morsel["max-age"] == 3600


def test_reading_sets_no_cookie_and_does_not_vary_by_cookie(site: Site, user: User) -> None:
    """A response that saved nothing is as cacheable as without the package, although the session was looked at."""
    browser = signed_in(user)
    response = browser.get("/newest/")
    assert "pglb" not in response.cookies
    assert "Cookie" not in response.headers.get("Vary", "")


def test_keys_in_the_store_tell_nothing(site: Site, user: User) -> None:
    """Neither the session key nor the user id nor a token can be read in Redis."""
    browser = signed_in(user)
    browser.post("/write/", {"text": "x"}, headers={"Authorization": "Token secret-token"})
    keys = site.pointer_keys()
    assert len(keys) >= 3
    secrets = ("secret-token", browser.cookies["sessionid"].value)
    assert all(key.startswith("pglb:1:") and not any(secret in key for secret in secrets) for key in keys)
    assert all(3500_000 < int(site.redis.pttl(key)) <= 3600_000 for key in keys)


def test_unsafe_method_reads_from_the_primary(site: Site, browser: Client) -> None:
    """Read-modify-write on stale data is a lost update."""
    assert Served(browser.post("/newest/")).reasons == {Reason.UNSAFE_METHOD}


def test_replica_reads_lets_a_view_read_by_the_pointer_in_spite_of_its_method(site: Site, browser: Client) -> None:
    """A search form's POST goes to a replica and is not taken to have written."""
    response = browser.post("/search/")
    assert Served(response).reasons == {Reason.REPLICA}
    assert "pglb" not in response.cookies
