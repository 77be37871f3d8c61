"""What each kind of test case sees of what it wrote. Some of them fail with a naive router."""

from __future__ import annotations

import urllib.parse
import urllib.request
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import InternalError, connection, transaction
from django.test import Client, LiveServerTestCase, TestCase, TransactionTestCase

from django_pglb import use_replicas
from django_pglb.core.decision import Reason
from django_pglb.testing import assert_served_by

from .models import Note

BOTH = {"default", "replica"}


def served_by(*aliases: str, reasons: list[Reason]) -> AbstractContextManager[None]:
    """Say nothing of who served where the naive router is in place."""
    return nullcontext() if settings.IS_NAIVE else assert_served_by(*aliases, reasons=reasons)


def shown(client: Client) -> str:
    return client.get("/read/").content.decode()


class InTransaction(TestCase):
    """The usual test case: a transaction on the primary around each test, and one on the mirror's own connection beside it."""

    databases = BOTH

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ann = User.objects.create_user("ann")
        Note.objects.create(text="set up")

    def test_reads_see_the_transaction_of_the_test(self) -> None:
        Note.objects.create(text="x")
        with served_by("default", reasons=[Reason.TRANSACTION]):
            self.assertEqual(shown(self.client), "None set up, x")

    def test_reads_see_what_was_set_up_for_the_class(self) -> None:
        self.client.force_login(self.ann)
        with served_by("default", reasons=[Reason.TRANSACTION]):
            self.assertEqual(shown(self.client), "ann set up")

    def test_hooks_are_captured(self) -> None:
        counts: list[int] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
            Note.objects.create(text="x")
            transaction.on_commit(lambda: counts.append(Note.objects.count()))
        self.assertEqual((len(callbacks), counts), (1, [2]))

    def test_block_on_the_mirror_is_part_of_it(self) -> None:
        with suppress(ValueError), transaction.atomic(using="replica"):
            Note.objects.using("replica").create(text="x")
            with transaction.atomic():
                Note.objects.create(text="y")
            self.assertEqual(Note.objects.using("replica").count(), 3)
            raise ValueError
        self.assertEqual(Note.objects.count(), 1)
        with self.captureOnCommitCallbacks(using="replica", execute=True) as callbacks, transaction.atomic(using="replica"):
            note, created = Note.objects.using("replica").get_or_create(text="x")
            transaction.on_commit(note.delete, using="replica")
        self.assertEqual((len(callbacks), created, Note.objects.using("replica").count()), (1, True, 1))

    def test_stale_block_on_the_mirror_is_part_of_it(self) -> None:
        with use_replicas(), transaction.atomic(using="replica"):
            self.assertEqual(Note.objects.using("replica").count(), 1)

    def test_fixture_is_rolled_back_for_the_next_test(self) -> None:
        Note.objects.all().delete()
        self.assertEqual(shown(self.client), "None ")


class WithAtomicRequests(TestCase):
    """The block around the view is a savepoint in the transaction of the test."""

    databases = BOTH

    def setUp(self) -> None:
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        self.addCleanup(connection.settings_dict.update, ATOMIC_REQUESTS=False)

    def test_reads_see_the_transaction_of_the_test(self) -> None:
        self.client.post("/write/", {"text": "x"})
        with served_by("default", reasons=[Reason.TRANSACTION]):
            self.assertEqual(shown(self.client), "None x")


class Committed(TransactionTestCase):
    """What is written is committed, so that the mirror sees it."""

    databases = BOTH

    def test_write_is_read_from_the_mirror(self) -> None:
        self.client.post("/write/", {"text": "x"})
        with served_by("replica", reasons=[Reason.REPLICA]):
            self.assertEqual(shown(self.client), "None x")

    def test_transaction_is_read_on_the_primary(self) -> None:
        with transaction.atomic():
            Note.objects.create(text="x")
            self.assertEqual(Note.objects.count(), 1)

    def test_block_on_the_mirror_is_the_primarys(self) -> None:
        with suppress(ValueError), transaction.atomic(using="replica"):
            Note.objects.using("replica").create(text="x")
            Note.objects.create(text="y")
            self.assertEqual(Note.objects.using("replica").count(), 2)
            raise ValueError
        self.assertEqual(Note.objects.count(), 0)

    def test_stale_block_on_the_mirror_is_its_own(self) -> None:
        Note.objects.create(text="x")
        with use_replicas(), transaction.atomic(using="replica"):
            self.assertEqual(Note.objects.using("replica").count(), 1)
            with self.assertRaises(InternalError), transaction.atomic(using="replica"):
                Note.objects.using("replica").create(text="y")
        self.assertEqual(Note.objects.count(), 1)


class CommittedOnOne(TransactionTestCase):
    """Only the primary is allowed, as by default."""

    def test_reads_use_what_is_allowed(self) -> None:
        self.client.post("/write/", {"text": "x"})
        with served_by("default", reasons=[Reason.NO_REPLICA]):
            self.assertEqual(shown(self.client), "None x")


class Live(LiveServerTestCase):
    """The server's threads have connections of their own, to the same database."""

    databases = BOTH

    def test_page_is_read_from_the_mirror(self) -> None:
        form = urllib.parse.urlencode({"text": "x"}).encode()
        urllib.request.urlopen(f"{self.live_server_url}/write/", form).close()
        Note.objects.create(text="y")
        with (
            served_by("replica", reasons=[Reason.REPLICA]),
            urllib.request.urlopen(f"{self.live_server_url}/read/") as response,
        ):
            self.assertEqual(response.read().decode(), "None x, y")


@pytest.mark.django_db(databases=["default", "replica"])
def test_mark_in_a_transaction(client: Client) -> None:
    """As in Django's own test case."""
    Note.objects.create(text="x")
    with served_by("default", reasons=[Reason.TRANSACTION]):
        assert shown(client) == "None x"


@pytest.mark.django_db(transaction=True, databases=["default", "replica"])
def test_mark_with_commits(client: Client) -> None:
    """As in Django's own test case; hooks run at the commit."""
    counts: list[int] = []
    with transaction.atomic():
        Note.objects.create(text="x")
        transaction.on_commit(lambda: counts.append(Note.objects.count()))
    assert counts == [1]
    with served_by("replica", reasons=[Reason.REPLICA]):
        assert shown(client) == "None x"


@pytest.mark.django_db(transaction=True)
def test_mark_with_commits_on_one(client: Client) -> None:
    """The mirror is not used where it is not allowed."""
    Note.objects.create(text="x")
    with served_by("default", reasons=[Reason.NO_REPLICA]):
        assert shown(client) == "None x"


@pytest.mark.django_db(databases=["default", "replica"], transaction=True)
def test_live_server(live_server: Any) -> None:
    """Its threads read from the mirror."""
    Note.objects.create(text="x")
    with served_by("replica", reasons=[Reason.REPLICA]), urllib.request.urlopen(f"{live_server.url}/read/") as response:
        assert response.read().decode() == "None x"
