"""API clients on Django REST framework: whoever says who they are, in whatever way, sees what they wrote. Value, host and reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token

from django_pglb import routing_session
from django_pglb.core.decision import Reason
from django_pglb.identity import Owners, session_owners

from .api.bearer import new_token
from .fix_site import Served, Site
from .guestbook.models import Entry
from .test_costs import redis_commands
from .test_read_your_writes import signed_in

pytestmark = pytest.mark.urls("tests.api.urls")


def by_token(user: User) -> Client:
    return bearing(f"Token {Token.objects.get_or_create(user=user)[0].key}")


def by_bearer(user: User, number: int = 1) -> Client:
    return bearing(f"Bearer {new_token(user, number)}")


def bearing(authorization: str) -> Client:
    """A client that keeps no cookie."""
    return CookielessClient(headers={"Authorization": authorization})


class CookielessClient(Client):
    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        self.cookies.clear()
        return response


WAYS: dict[str, Callable[[User], Client]] = {"token": by_token, "session": signed_in, "bearer": by_bearer}


@pytest.fixture
def bob(site: Site) -> User:
    """Somebody else, whom the replicas know."""
    return User.objects.create_user("bob", password="secret")


def texts(response: Any) -> list[str]:
    assert response.status_code == 200, response.json()
    return [entry["text"] for entry in response.json()["results"]]


@pytest.mark.parametrize("way", WAYS)
def test_client_sees_what_it_wrote_and_others_read_replicas(site: Site, user: User, bob: User, way: str) -> None:
    """Its pages come from the primary (behind), count and rows; a client of somebody else's reads a replica."""
    ann_client, bob_client = WAYS[way](user), WAYS[way](bob)
    site.pause_replay()
    created = ann_client.post(f"/api/{way}/entries/", {"text": "mine"})
    assert created.status_code == 201
    response = ann_client.get(f"/api/{way}/entries/")
    assert (texts(response), response.json()["count"]) == (["mine"], 1)
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})
    response = ann_client.get(f"/api/{way}/entries/{created.json()['pk']}/")
    assert (response.json()["text"], Served(response).reasons) == ("mine", {Reason.BEHIND})
    response = bob_client.get(f"/api/{way}/entries/")
    assert (texts(response), Served(response).reasons) == ([], {Reason.REPLICA})


@pytest.mark.parametrize("way", WAYS)
def test_client_is_back_on_replicas_when_they_have_it(site: Site, user: User, way: str) -> None:
    """A bound page of a list: user, count and rows are read from one replica that has proved the write."""
    client = WAYS[way](user)
    for text in ("first", "second", "third"):
        client.post(f"/api/{way}/entries/", {"text": text})
    site.wait_until_seen()
    response = client.get(f"/api/{way}/entries/?page=2")
    assert (texts(response), response.json()["count"]) == (["first"], 3)
    assert (len(Served(response).aliases), Served(response).reasons) == (1, {Reason.REPLICA})


def test_change_reads_the_current_row(site: Site, user: User) -> None:
    """PATCH reads what it changes on the primary, whoever wrote it."""
    entry = Entry.objects.create(text="old")
    client = by_bearer(user)
    site.pause_replay()
    Entry.objects.filter(pk=entry.pk).update(text="new")
    response = client.patch(f"/api/bearer/entries/{entry.pk}/", {}, content_type="application/json")
    assert response.json()["text"] == "new"
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.UNSAFE_METHOD, Reason.WRITE})


def test_two_tokens_of_one_user_see_each_others_writes(site: Site, user: User) -> None:
    """Without a word in the view: who has been resolved binds from then on, and from the beginning when the token is known here."""
    phone, laptop = by_bearer(user, 1), by_bearer(user, 2)
    site.pause_replay()
    phone.post("/api/bearer/entries/", {"text": "from the phone"})
    response = laptop.get("/api/bearer/entries/")
    assert texts(response) == ["from the phone"]
    assert {decision[:2] for decision in Served(response).decisions} >= {("default", Reason.BEHIND)}
    assert Served(response).reasons == {Reason.REPLICA, Reason.BEHIND}  # the user's row, by which they became known
    response = laptop.get("/api/bearer/entries/")
    assert texts(response) == ["from the phone"]
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


@pytest.mark.parametrize("writer", ["browser", "token"])
def test_token_and_browser_of_one_user_see_each_others_writes(site: Site, user: User, writer: str) -> None:
    """The user binds, whatever brought them."""
    browser, client = signed_in(user), by_token(user)
    site.pause_replay()
    if writer == "browser":
        browser.post("/write/", {"text": "x"})
        response = client.get("/api/token/entries/")
        assert texts(response) == ["x"]
    else:
        client.post("/api/token/entries/", {"text": "x"})
        response = browser.get("/newest/")
        assert response.json() == {"text": "x"}
    assert Served(response).decisions[-1][:2] == ("default", Reason.BEHIND)


def test_token_made_just_now_is_found(site: Site, user: User) -> None:
    """Nothing but the token itself connects the login with what follows."""
    site.pause_replay()
    answer = CookielessClient().post("/api/token/", {"username": "ann", "password": "secret"})
    response = bearing(f"Token {answer.json()['token']}").get("/api/token/entries/")
    assert texts(response) == []
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


@pytest.mark.parametrize("is_request", [True, False])
def test_token_made_in_a_unit_of_nobody_is_found(site: Site, user: User, is_request: bool) -> None:
    """Whoever will come with it is bound by that unit, and by those around it."""
    site.pause_replay()
    if is_request:
        key = CookielessClient().post("/api/new_token/", {"username": "ann"}).json()["token"]
    else:
        with routing_session():
            key = Token.objects.create(user=user).key
    response = bearing(f"Token {key}").get("/api/token/entries/")
    assert texts(response) == []
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


def test_use_replicas_refuses_no_token(site: Site, user: User) -> None:
    """Stale is fine for the list, not for who asks: the client's own entry is not there yet, the token is."""
    site.pause_replay()
    client = bearing(f"Token {CookielessClient().post('/api/token/', {'username': 'ann', 'password': 'secret'}).json()['token']}")
    client.post("/api/token/entries/", {"text": "x"})
    response = client.get("/api/stale/entries/")
    assert texts(response) == []
    assert {reason: alias == "default" for alias, reason, _ in Served(response).decisions} == {
        Reason.BEHIND: True,
        Reason.STALE_ALLOWED: False,
    }


def test_token_revoked_just_now_is_refused(site: Site, user: User) -> None:
    """Whoever revoked it, and whichever replica still has it."""
    client = by_token(user)
    site.pause_replay()
    assert client.get("/api/token/entries/").status_code == 200
    with routing_session(identity=("staff", "1")):
        Token.objects.filter(user=user).delete()
    response = client.get("/api/token/entries/")
    assert (response.status_code, Served(response).aliases, Served(response).reasons) == (401, {"default"}, {Reason.BEHIND})


@pytest.mark.parametrize("sticks", [True, False])
def test_user_made_just_now_is_found_if_the_view_says_whose_token_it_gives_out(site: Site, sticks: bool) -> None:
    """Nobody can know what a signed token is that a view puts into its response: without stick() a replica is asked for the user."""
    site.pause_replay()
    answer = CookielessClient().post("/api/register/", {"username": "carol", **({"stick": "1"} if sticks else {})})
    response = bearing(f"Bearer {answer.json()['token']}").get("/api/bearer/entries/")
    expected = (200, {"default"}, {Reason.BEHIND}) if sticks else (401, set(Served(response).aliases) - {"default"}, {Reason.REPLICA})
    assert (response.status_code, Served(response).aliases, Served(response).reasons) == expected


def test_identity_function_may_read_the_token(site: Site, user: User, settings: Any) -> None:
    """With the subject known beforehand even the first request of another token reads everything by the user's pointer."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "IDENTITY": "tests.api.bearer.from_request"}}
    site.wait_until_online()
    site.forget_pointers()
    site.pause_replay()
    by_bearer(user, 1).post("/api/bearer/entries/", {"text": "x"})
    response = by_bearer(user, 2).get("/api/bearer/entries/")
    assert texts(response) == ["x"]
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


def test_token_whose_owner_is_known_here_costs_one_message_to_redis(site: Site, user: User) -> None:
    """Its first request in a process asks again when the user is known; later ones ask for both at once."""
    client = by_bearer(user)
    site.wait_until_seen()
    with redis_commands(site) as commands:
        client.get("/api/bearer/entries/")
        site.redis.echo("second")
        assert Served(client.get("/api/bearer/entries/")).reasons == {Reason.REPLICA}
    assert [command.split()[0] for command in commands] == ["MGET", "MGET", "ECHO", "MGET"]


def test_owner_of_a_shared_header_is_a_hint_only(site: Site, user: User, bob: User) -> None:
    """One Authorization header in front of a whole site: who was last seen with it hides nobody's own pointer."""
    browsers = [Client(headers={"Authorization": "Basic c2l0ZTpwYXNz"}) for _ in range(2)]
    for browser, name in zip(browsers, ("ann", "bob"), strict=True):
        browser.post("/sign_in/", {"username": name, "password": "secret"})
    elsewhere = signed_in(user)
    site.pause_replay()
    session_owners.clear()
    elsewhere.post("/write/", {"text": "ann's"})
    response = browsers[0].get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": "ann's"}, {Reason.REPLICA, Reason.BEHIND})


def test_token_of_several_users_binds_only_who_came_with_it(site: Site, user: User, bob: User) -> None:
    """A gateway's: who came with it before is not bound by what the next one writes, nor by what is written for nobody."""
    browser = signed_in(user)
    gateway = bearing("Bearer gateway")
    site.pause_replay()
    gateway.get("/api/on_behalf/", headers={"X-For": "ann"})
    gateway.post("/api/on_behalf/", headers={"X-For": "bob"})
    gateway.get("/api/on_behalf/", headers={"X-For": "ann"})
    gateway.post("/write/", {"text": "nobody's"})
    response = browser.get("/newest/")
    assert (response.json(), Served(response).reasons) == ({"text": None}, {Reason.REPLICA})
    response = gateway.get("/api/on_behalf/", headers={"X-For": "bob"})
    assert (response.json(), Served(response).decisions[-1][:2]) == ({"count": 2}, ("default", Reason.BEHIND))


def test_memory_of_owners_keeps_no_key() -> None:
    """They are secrets, and long where the session is the cookie."""
    owners = Owners()
    owners.remember("a session key", "1")
    assert owners.get("a session key") == "1"
    assert "a session key" not in repr(vars(owners))
