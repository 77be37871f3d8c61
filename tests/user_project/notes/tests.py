"""The tests that such a project has. They are run by `tests/test_user_project.py`, in a process of their own."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import suppress
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, ProgrammingError, connection, connections, transaction
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


class AllAliasesTests(TestCase):
    """What works with a plain mirror, with every alias that there is."""

    databases = "__all__"

    def test_expected_error_of_a_save(self) -> None:
        User.objects.create_user("ann")
        with self.assertRaises(IntegrityError):
            User.objects.create(username="ann")

    def test_expected_error_of_sql(self) -> None:
        with self.assertRaises(ProgrammingError), connection.cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")

    def test_expected_error_of_a_mirrors_statement(self) -> None:
        Note.objects.using("replica").count()
        User.objects.create_user("ann")
        with self.assertRaises(IntegrityError):
            User.objects.create(username="ann")

    def test_expected_error_in_a_block_by_a_mirrors_name(self) -> None:
        User.objects.create_user("ann")
        with self.assertRaises(IntegrityError), transaction.atomic(using="replica"):
            User.objects.create(username="ann")

    def test_constraints_are_checked_where_they_are(self) -> None:
        Note.objects.using("replica").count()
        connections["replica"].check_constraints()
        connections["default"].check_constraints()

    def test_each_connection_has_its_own_watchers(self) -> None:
        seen: dict[str, list[str]] = {"default": [], "replica": []}

        def watch(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            seen[context["connection"].alias].append(sql)
            return execute(sql, params, many, context)

        with connections["default"].execute_wrapper(watch), connections["replica"].execute_wrapper(watch):
            Note.objects.using("replica").count()
            Note.objects.count()
        self.assertEqual([len(statements) for statements in seen.values()], [1, 1])

    def test_each_connection_counts_its_own_statements(self) -> None:
        Note.objects.create(text="x")
        with self.assertNumQueries(0), self.assertNumQueries(1, using="replica"):
            self.assertEqual(Note.objects.using("replica").count(), 1)
        with self.assertNumQueries(1), self.assertNumQueries(0, using="replica"):
            Note.objects.count()

    def test_hooks_are_captured_by_either_name(self) -> None:
        for alias in ("default", "replica"):
            with self.captureOnCommitCallbacks(using=alias) as callbacks:
                transaction.on_commit(lambda: None, using=alias)
            self.assertEqual(len(callbacks), 1)


class MirrorAloneTests(TestCase):
    """A test case without the primary: what is addressed to the mirror is in the mirror's own transaction."""

    databases = {"replica"}  # noqa: RUF012 - as Django documents it

    def test_written_is_read(self) -> None:
        Note.objects.using("replica").create(text="x")
        with suppress(ValueError), transaction.atomic(using="replica"):
            Note.objects.using("replica").create(text="y")
            raise ValueError
        self.assertEqual([note.text for note in Note.objects.using("replica").iterator()], ["x"])

    def test_nothing_is_left_of_it(self) -> None:
        with use_replicas():
            self.assertEqual(Note.objects.using("replica").count(), 0)

    def test_expected_error(self) -> None:
        with self.assertRaises(ProgrammingError), transaction.atomic(using="replica"), connections["replica"].cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")
        self.assertEqual(Note.objects.using("replica").count(), 0)

    def test_primary_is_forbidden(self) -> None:
        with self.assertRaisesMessage(AssertionError, "'default' are not allowed"):
            Note.objects.using("default").count()


class SecondAliasTests(TestCase):
    """An alias that belongs to no cluster is Django's own: it shares the database, and nothing else."""

    databases = "__all__"

    def test_user_and_options_are_its_own(self) -> None:
        with connections["limited"].cursor() as cursor:
            cursor.execute("SELECT current_user, current_setting('application_name'), current_database()")
            self.assertEqual(cursor.fetchone(), ("plain", "limited", connection.settings_dict["NAME"]))

    def test_permissions_are_its_own(self) -> None:
        with self.assertRaisesMessage(ProgrammingError, "permission denied"):
            Note.objects.using("limited").count()


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
