"""The admin, and forms that look whether something is there already."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.http import HttpRequest, JsonResponse
from django.test import Client

from django_pglb.core.decision import Reason

from ..fix_routed import REPLICAS, Routed
from .models import Publication, Reader

CHANGE_LIST = "/admin/corners/publication/"
NAIVE_IS_BEHIND = pytest.mark.naive_is_wrong("the replica does not have the change yet", raises=AssertionError)


@pytest.fixture
def staff(routed: Routed, settings: Any) -> Client:
    """A member of staff in the admin, whom the replicas know."""
    settings.ROOT_URLCONF = "tests.corners.urls"
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="secret"))
    # What this wrote outside any request binds nobody, and who reads a session before it is there is signed out.
    routed.settle()
    # A request that acts for the session and the user, so that later pages do not have to find out.
    client.get("/admin/")
    routed.settle()
    return client


def listed(response: Any) -> list[str]:
    assert response.status_code == 200
    return [str(publication) for publication in response.context["cl"].result_list]


def test_change_list_is_read_from_a_replica(routed: Routed, staff: Client) -> None:
    """Session, user, permissions and rows: one replica answers for all of them."""
    Publication.objects.create(title="News")
    routed.settle()
    response = staff.get(CHANGE_LIST)
    assert listed(response) == ["News"]
    routed.assert_served(response, REPLICAS, Reason.REPLICA)


@NAIVE_IS_BEHIND
def test_added_is_in_the_change_list(routed: Routed, staff: Client) -> None:
    """The page that the admin redirects to has what was added, and says so."""
    routed.lag()
    added = staff.post(CHANGE_LIST + "add/", {"title": "News"})
    response = staff.get(added.headers["Location"])
    assert listed(response) == ["News"]
    assert "was added successfully" in response.text
    routed.assert_served(response, "default", Reason.BEHIND)


@pytest.mark.naive_is_wrong("the admin says that it does not exist, perhaps it was deleted", raises=AssertionError)
def test_added_can_be_edited_at_once(routed: Routed, staff: Client) -> None:
    """ "Save and continue editing" shows the form of what was saved."""
    routed.lag()
    added = staff.post(CHANGE_LIST + "add/", {"title": "News", "_continue": "1"})
    response = staff.get(added.headers["Location"])
    assert response.status_code == 200
    assert response.context["original"].title == "News"
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_IS_BEHIND
def test_changed_is_changed_in_the_change_list(routed: Routed, staff: Client) -> None:
    """Nobody wonders whether it was saved."""
    news = Publication.objects.create(title="News")
    routed.lag()
    staff.post(f"{CHANGE_LIST}{news.pk}/change/", {"title": "Olds"})
    response = staff.get(CHANGE_LIST)
    assert listed(response) == ["Olds"]
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_IS_BEHIND
def test_deleted_is_gone_from_the_change_list(routed: Routed, staff: Client) -> None:
    """By the page that asks whether one is sure."""
    news = Publication.objects.create(title="News")
    routed.lag()
    staff.post(f"{CHANGE_LIST}{news.pk}/delete/", {"post": "yes"})
    response = staff.get(CHANGE_LIST)
    assert listed(response) == []
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_IS_BEHIND
def test_action_is_seen_in_the_change_list(routed: Routed, staff: Client) -> None:
    """By an action on several rows."""
    news = Publication.objects.create(title="News")
    routed.lag()
    staff.post(CHANGE_LIST, {"action": "delete_selected", "_selected_action": [news.pk], "post": "yes"})
    response = staff.get(CHANGE_LIST)
    assert listed(response) == []
    routed.assert_served(response, "default", Reason.BEHIND)


@NAIVE_IS_BEHIND
def test_change_is_in_the_history(routed: Routed, staff: Client) -> None:
    """The admin's log knows of it."""
    news = Publication.objects.create(title="News")
    routed.lag()
    staff.post(f"{CHANGE_LIST}{news.pk}/change/", {"title": "Olds"})
    response = staff.get(f"{CHANGE_LIST}{news.pk}/history/")
    assert [entry.get_change_message() for entry in response.context["action_list"]] == ["Changed Title."]
    routed.assert_served(response, "default", Reason.BEHIND)


class ReaderForm(forms.ModelForm):
    class Meta:
        model = Reader
        fields = ("name",)


def register(request: HttpRequest) -> JsonResponse:
    form = ReaderForm(request.POST)
    if form.is_valid():
        form.save()
    return JsonResponse(form.errors)


def is_free(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"is_free": not Reader.objects.filter(name=request.GET["name"]).exists()})


@pytest.mark.naive_is_wrong("the form finds nothing wrong, and saving it is an error 500", raises=IntegrityError)
def test_form_finds_what_was_just_taken(routed: Routed) -> None:
    """Also by somebody else: forms are sent with POST, which reads from the primary."""
    routed.lag()
    routed.visit(Client(), register, "post", data={"name": "ann"})
    response = routed.visit(Client(), register, "post", data={"name": "ann"})
    assert response.json() == {"name": ["Reader with this Name already exists."]}
    routed.assert_served(response, "default", Reason.UNSAFE_METHOD)


@pytest.mark.naive_is_wrong("the admin finds nothing wrong, and saving is an error 500", raises=IntegrityError)
def test_admin_finds_what_was_just_taken(routed: Routed, staff: Client) -> None:
    """Its transaction reads from the primary."""
    routed.lag()
    staff.post("/admin/corners/reader/add/", {"name": "ann"})
    response = staff.post("/admin/corners/reader/add/", {"name": "ann"})
    assert response.context["adminform"].form.errors == {"name": ["Reader with this Name already exists."]}
    routed.assert_served(response, "default", Reason.UNSAFE_METHOD, Reason.TRANSACTION)


@pytest.mark.naive_is_wrong("the page still offers the name", raises=AssertionError)
def test_page_knows_what_its_reader_has_taken(routed: Routed) -> None:
    """A look whether a name is free, as scripts do while one types, sees one's own registration; another visitor's may lag."""
    routed.lag()
    client = Client()
    routed.visit(client, register, "post", data={"name": "ann"})
    response = routed.visit(client, is_free, data={"name": "ann"})
    assert response.json() == {"is_free": False}
    routed.assert_served(response, "default", Reason.BEHIND)
    routed.assert_served(routed.visit(Client(), is_free, data={"name": "ann"}), REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("nothing wrong is found", raises=pytest.fail.Exception)
def test_full_clean_outside_a_request(routed: Routed) -> None:
    """A job that has written validates against what it wrote: constraints and unique fields alike."""
    routed.lag()
    with routed.unit():
        Reader.objects.create(name="ann")
        with pytest.raises(ValidationError, match="already exists"):
            Reader(name="ann").full_clean()
        routed.assert_reads("default", Reason.WROTE)
