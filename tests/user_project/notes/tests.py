"""The tests that such a project has. They are run by `tests/test_user_project.py`, in a process of their own."""

from __future__ import annotations

import threading
import urllib.request

from django.contrib.auth.models import User
from django.db import connections
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

from django_pglb import routing_session, use_replicas
from django_pglb.core.decision import Reason
from django_pglb.testing import assert_served_by

from .models import Note
from .tasks import count_notes


class OrdinaryTests(TestCase):
    """Django's usual test case, with its default of one database: nothing about replicas is said, and nothing needed."""

    def test_written_is_read(self) -> None:
        user = User.objects.create_user("ann")
        self.client.force_login(user)
        response = self.client.post("/write/", {"text": "x"})
        self.assertNotIn("pglb", response.cookies)
        with assert_served_by("default", reasons=["transaction"]):
            self.assertEqual(self.client.get("/read/").content.decode(), "ann x")

    def test_number_of_queries(self) -> None:
        with self.assertNumQueries(1), routing_session():
            Note.objects.count()

    def test_task_is_enqueued_as_it_is(self) -> None:
        Note.objects.create(text="x")
        result = count_notes.enqueue(text="x")
        self.assertEqual((result.kwargs, result.task), ({"text": "x"}, count_notes))
        self.assertEqual(result.task.call(**result.kwargs), 1)


class AliasTests(TestCase):
    databases = {"default", "replica"}  # noqa: RUF012 - as Django documents it

    def test_a_replicas_alias_sees_the_transaction_of_the_test(self) -> None:
        Note.objects.create(text="x")
        with routing_session(), use_replicas():
            self.assertEqual(Note.objects.using("replica").count(), 1)
        self.assertEqual(Note.objects.using("replica").count(), 1)


class TransactionTests(TransactionTestCase):
    """No alias of a replica is allowed here: the mirror is not used."""

    def test_forbidden_mirror_is_not_used(self) -> None:
        self.client.post("/write/", {"text": "x"})
        with assert_served_by("default", reasons=[Reason.NO_REPLICA]):
            self.assertEqual(self.client.get("/read/").content.decode(), "None x")


class MirrorTests(TransactionTestCase):
    databases = {"default", "replica"}  # noqa: RUF012 - as Django documents it

    def test_mirror_answers_reads(self) -> None:
        self.client.post("/write/", {"text": "x"})
        with assert_served_by("replica", reasons=["replica"]):
            self.assertEqual(self.client.get("/read/").content.decode(), "None x")

    def test_what_a_mirror_shows_is_not_stale(self) -> None:
        Note.objects.create(text="x")
        with routing_session():
            note = Note.objects.get()
            self.assertEqual(note._state.db, "replica")
            note.save()

    def test_assertion_fails_when_another_alias_answers(self) -> None:
        with self.assertRaisesMessage(AssertionError, "found replica (replica)"), assert_served_by("default"):
            self.client.get("/read/")
        with self.assertRaisesMessage(AssertionError, "none was run"), assert_served_by("default"):
            pass

    def test_threads_see_the_mirror_too(self) -> None:
        Note.objects.create(text="x")
        counts: list[int] = []

        def count() -> None:
            with routing_session(), assert_served_by("replica"):
                counts.append(Note.objects.count())
            connections.close_all()

        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
        self.assertEqual(counts, [1])


class LiveTests(LiveServerTestCase):
    def test_live_server(self) -> None:
        Note.objects.create(text="x")
        with urllib.request.urlopen(f"{self.live_server_url}/read/") as response:
            self.assertEqual(response.read().decode(), "None x")
