"""Who a visitor is, and what was said to them, from one page to the next: sessions of each engine, logins, messages, CSRF tokens."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.middleware.csrf import get_token
from django.test import Client

from django_pglb.core.decision import Reason

from ..fix_routed import REPLICAS, Routed
from .pages import change_password, publish, sign_in, sign_out, sign_up, titles, whoami

ENGINES = ("db", "cached_db", "cache", "signed_cookies")

NAIVE_LOSES_SESSION = pytest.mark.naive_is_wrong("the session is not on the replica, so the visitor is signed out", raises=AssertionError)
NAIVE_LOSES_USER = pytest.mark.naive_is_wrong("the user's row is not on the replica as it is now", raises=AssertionError)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, settings: Any) -> str:
    """Where sessions live."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    return str(request.param)


def without_pointer(client: Client) -> Client:
    """The browser without the cookie of ours: only the store knows what it has written."""
    client.cookies.pop("pglb", None)
    return client


def signed_in(routed: Routed, user: User) -> Client:
    client = Client()
    routed.visit(client, sign_in, "post")
    return client


@pytest.mark.parametrize("engine", ["db"], indirect=True)
@NAIVE_LOSES_SESSION
def test_login(routed: Routed, user: User, engine: str) -> None:
    """The next page knows who signed in, and so does the one after it: the session is found where it was written."""
    routed.lag()
    client = without_pointer(signed_in(routed, user))
    for _ in range(2):
        response = routed.visit(client, whoami)
        assert response.json() == {"user": "ann"}
        routed.assert_served(response, "default", Reason.BEHIND)


@pytest.mark.parametrize("engine", ["cached_db", "cache", "signed_cookies"], indirect=True)
def test_login_with_a_session_outside_the_database(routed: Routed, user: User, engine: str) -> None:
    """The next page knows who signed in; what it reads of the user is bound by the login, which wrote `last_login`."""
    routed.lag()
    client = without_pointer(signed_in(routed, user))
    response = routed.visit(client, whoami)
    assert response.json() == {"user": "ann"}
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_LOSES_USER
def test_sign_up(routed: Routed, engine: str) -> None:
    """Somebody who has just been created is signed in on the next page, wherever the session lives."""
    routed.lag()
    client = Client()
    routed.visit(client, sign_up, "post")
    response = routed.visit(without_pointer(client), whoami)
    assert response.json() == {"user": "bob"}
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_LOSES_USER
def test_change_of_password(routed: Routed, user: User, engine: str) -> None:
    """The session is checked against the new password, not against the one that a lagging replica has."""
    client = signed_in(routed, user)
    routed.lag()
    routed.visit(client, change_password, "post")
    response = routed.visit(without_pointer(client), whoami)
    assert response.json() == {"user": "ann"}
    routed.assert_served(response, "default", Reason.BEHIND)


@pytest.mark.naive_is_wrong("the old password still opens the door", raises=AssertionError)
def test_password_from_before_signs_nobody_in(routed: Routed, user: User) -> None:
    """Signing in is a POST, so it reads from the primary, for everybody: another device cannot use the old password."""
    client = signed_in(routed, user)
    routed.lag()
    routed.visit(client, change_password, "post")

    def opens(request: HttpRequest) -> JsonResponse:
        from django.contrib.auth import authenticate

        return JsonResponse({"opens": authenticate(request, username="ann", password="secret") is not None})

    response = routed.visit(Client(), opens, "post")
    assert response.json() == {"opens": False}
    routed.assert_served(response, "default", Reason.UNSAFE_METHOD)


@NAIVE_LOSES_USER
def test_change_of_password_ends_the_other_sessions(routed: Routed, user: User, engine: str) -> None:
    """The user's other devices are signed out at once, as Django promises: they are bound by the user's id."""
    phone, laptop = signed_in(routed, user), signed_in(routed, user)
    routed.lag()
    routed.visit(laptop, change_password, "post")
    response = routed.visit(without_pointer(phone), whoami)
    assert response.json() == {"user": ""}
    routed.assert_served(response, "default", Reason.BEHIND)


@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
@pytest.mark.naive_is_wrong("the replica still has the session", raises=AssertionError)
def test_logout(routed: Routed, user: User, engine: str) -> None:
    """The old cookie opens nothing any more: neither the replica's row, nor, with cached_db, one that is cached again from there."""
    client = signed_in(routed, user)
    stolen = client.cookies["sessionid"].value
    routed.lag()
    routed.visit(client, sign_out, "post")
    for _ in range(2):
        thief = Client()
        thief.cookies["sessionid"] = stolen
        response = routed.visit(thief, whoami)
        assert response.json() == {"user": ""}
        routed.assert_served(response, "default", Reason.BEHIND)


def test_logout_with_a_session_in_the_cache(routed: Routed, user: User, settings: Any) -> None:
    """There is nothing that could lag."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    client = signed_in(routed, user)
    thief = Client()
    thief.cookies["sessionid"] = client.cookies["sessionid"].value
    routed.lag()
    routed.visit(client, sign_out, "post")
    assert routed.visit(thief, whoami).json() == {"user": ""}


@pytest.mark.naive_is_wrong("the other device does not see it", raises=AssertionError)
def test_other_device(routed: Routed, user: User, engine: str) -> None:
    """The user's id is found in a session of any engine, and binds all devices."""
    phone, laptop = signed_in(routed, user), signed_in(routed, user)
    routed.lag()
    routed.visit(laptop, publish, "post")
    response = routed.visit(without_pointer(phone), titles)
    assert response.json() == {"titles": ["News"]}
    routed.assert_served(response, "default", Reason.BEHIND)


def test_signed_in_visitor_reads_from_a_replica(routed: Routed, user: User, engine: str) -> None:
    """Once the replicas have what the login wrote, the session, the user and the page come from one of them."""
    client = signed_in(routed, user)
    routed.settle()
    response = routed.visit(client, whoami)
    assert response.json() == {"user": "ann"}
    routed.assert_served(response, REPLICAS, Reason.REPLICA)


def count_visits(request: HttpRequest) -> JsonResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@pytest.mark.parametrize("engine", ["db"], indirect=True)
@pytest.mark.naive_is_wrong("the session is not there yet, and is begun anew", raises=AssertionError)
def test_session_that_pages_change(routed: Routed, engine: str) -> None:
    """A GET that saves the session binds the next one."""
    routed.lag()
    client = Client()
    assert [routed.visit(without_pointer(client), count_visits).json()["visits"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("engine", ["cached_db", "cache", "signed_cookies"], indirect=True)
def test_session_that_pages_change_outside_the_database(routed: Routed, engine: str) -> None:
    """There is nothing that could lag."""
    routed.lag()
    client = Client()
    assert [routed.visit(without_pointer(client), count_visits).json()["visits"] for _ in range(3)] == [1, 2, 3]


def say(request: HttpRequest) -> JsonResponse:
    messages.success(request, "Saved.")
    return JsonResponse({})


def hear(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"messages": [str(message) for message in messages.get_messages(request)]})


@pytest.mark.naive_is_wrong("the message is in a session that is not there yet", raises=AssertionError)
def test_messages_in_the_session(routed: Routed, settings: Any) -> None:
    """What a POST has to say is said by the page that it redirects to, and by that one only."""
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
    routed.lag()
    client = Client()
    routed.visit(client, say, "post")
    response = routed.visit(without_pointer(client), hear)
    assert response.json() == {"messages": ["Saved."]}
    routed.assert_served(response, "default", Reason.BEHIND)
    assert routed.visit(without_pointer(client), hear).json() == {"messages": []}


@pytest.mark.naive_is_wrong("the replica's session still has the message", raises=AssertionError)
def test_message_is_shown_once(routed: Routed, settings: Any) -> None:
    """The page that shows it saves the session, although it is a GET."""
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
    client = Client()
    routed.visit(client, say, "post")
    routed.lag()
    assert [routed.visit(without_pointer(client), hear).json()["messages"] for _ in range(2)] == [["Saved."], []]


def test_messages_in_a_cookie(routed: Routed) -> None:
    """Django's default storage needs no session for short ones."""
    routed.lag()
    client = Client()
    routed.visit(client, say, "post")
    assert [routed.visit(client, hear).json()["messages"] for _ in range(2)] == [["Saved."], []]


def form(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"token": get_token(request), "method": request.method})


@pytest.fixture
def csrf_checks(settings: Any, routed: Routed) -> Client:
    """A browser whose requests are checked."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]
    return Client(enforce_csrf_checks=True)


@pytest.mark.naive_is_wrong("the token is in a session that is not there yet: 403", raises=AssertionError)
def test_csrf_token_in_the_session(routed: Routed, csrf_checks: Client, settings: Any) -> None:
    """A form that was shown can be sent: the session that holds the token is read where the POST reads."""
    settings.CSRF_USE_SESSIONS = True
    routed.lag()
    token = routed.visit(csrf_checks, form).json()["token"]
    response = routed.visit(without_pointer(csrf_checks), form, "post", data={"csrfmiddlewaretoken": token})
    assert response.status_code == 200
    routed.assert_served(response, "default", Reason.UNSAFE_METHOD)


def test_csrf_token_in_a_cookie(routed: Routed, csrf_checks: Client) -> None:
    """Django's default needs no database; a form without a token is refused all the same."""
    routed.lag()
    token = routed.visit(csrf_checks, form).json()["token"]
    assert routed.visit(csrf_checks, form, "post", data={"csrfmiddlewaretoken": token}).status_code == 200
    assert routed.visit(csrf_checks, form, "post").status_code == 403


@pytest.mark.naive_is_wrong("the form that is shown after the login has a token that is not there yet: 403", raises=AssertionError)
def test_csrf_token_after_a_login(routed: Routed, csrf_checks: Client, user: User, settings: Any) -> None:
    """A login rotates the token and the session's key; the next form works."""
    settings.CSRF_USE_SESSIONS = True
    routed.lag()
    token = routed.visit(csrf_checks, form).json()["token"]
    routed.visit(csrf_checks, sign_in, "post", data={"csrfmiddlewaretoken": token})
    token = routed.visit(without_pointer(csrf_checks), form).json()["token"]
    response = routed.visit(csrf_checks, form, "post", data={"csrfmiddlewaretoken": token})
    assert (response.status_code, routed.visit(csrf_checks, whoami).json()) == (200, {"user": "ann"})
