"""Test runners for Django's own suite: they write down what became of each test, and open routing sessions around tests.

Loaded by Django's `runtests.py`, through `TEST_RUNNER` of the settings modules in `suite_settings`.
"""

from __future__ import annotations

import json
import os
import unittest
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner
from django.test.utils import CaptureQueriesContext
from suite_settings import MIRROR

if TYPE_CHECKING:
    from django_pglb.core.decision import Decision


# What `migrate` fills, and many tests expect to be full.
MIGRATED_TABLES = frozenset({"django_content_type", "auth_permission", "django_site", "django_migrations"})


class RecordingResult(unittest.TextTestResult):
    """Remembers what became of each test, under its id. In a parallel run Django replays the events of its workers here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: defaultdict[str, set[str]] = defaultdict(set)

    def _note(self, test: Any, outcome: str) -> None:
        self.outcomes[test.id()].add(outcome)

    def addSuccess(self, test: Any) -> None:  # noqa: N802 - unittest's name
        super().addSuccess(test)
        self._note(test, "passed")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note(test, "error")

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note(test, "failed")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._note(test, "skipped")

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._note(test, "expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._note(test, "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed in a subtest")


class RecordingRunner(DiscoverRunner):
    """Django's runner; writes the outcomes to the file that the environment names."""

    def get_resultclass(self) -> type[RecordingResult]:
        return RecordingResult

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        outcomes = {test: sorted(found) for test, found in sorted(result.outcomes.items())}
        Path(os.environ["PGLB_SUITE_RESULTS"]).write_text(json.dumps(outcomes, indent=1))
        failed: int = super().suite_result(suite, result, **kwargs)
        return failed


class PackageRunner(RecordingRunner):
    """Installs the app and the middleware, which `runtests.py` leaves no other way to do, and runs the system checks."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        settings.INSTALLED_APPS.append("django_pglb")
        settings.MIDDLEWARE.insert(0, "django_pglb.middleware.LoadBalancingMiddleware")
        apps.set_installed_apps(settings.INSTALLED_APPS)


class CommittingRunner(RecordingRunner):
    """Makes every `TestCase` commit and clean up, as Django does itself on a database without transactions.

    Inside the transaction that a `TestCase` opens on the primary, no read may go anywhere else.
    """

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        TestCase._databases_support_transactions = classmethod(lambda _: False)  # type: ignore[attr-defined]  # private to Django
        TestCase._fixture_setup = classmethod(_set_up_or_clean)  # type: ignore[attr-defined]  # private to Django
        TestCase._fixture_teardown = lambda test_case: _clean(type(test_case))  # type: ignore[attr-defined]  # private to Django

    def setup_databases(self, **kwargs: Any) -> Any:
        old_config = super().setup_databases(**kwargs)
        for alias in kwargs["aliases"]:
            with connections[alias].cursor() as cursor:
                for table in MIGRATED_TABLES:
                    cursor.execute(CONTENT.format(table=table))
                    _migrated[alias, table] = cursor.fetchone()[0]
            connections[alias].close()
        return old_config


CONTENT = "SELECT coalesce(json_agg(row ORDER BY id), '[]')::text FROM {table} row"
_set_up = TestCase._fixture_setup.__func__  # type: ignore[attr-defined]  # private to Django
_migrated: dict[tuple[str, str], str] = {}


def _set_up_or_clean(cls: type[TestCase]) -> None:
    try:
        _set_up(cls)
    except BaseException:
        # Django tears down only what was set up, and the next test would find the rest.
        _clean(cls)
        raise


def _clean(cls: type[TestCase]) -> None:
    """Undo what the test wrote. Django's own `flush` takes a third of a second here, most of it for content types and permissions."""
    # Imported late: this module is loaded before the apps are.
    from django.contrib.contenttypes.models import ContentType

    for alias in cls._databases_names(include_mirrors=False):  # type: ignore[attr-defined]  # private to Django
        connection = connections[alias]
        # Not `django_table_names()`, which leaves out what the routers of the test do not migrate.
        tables = set(connection.introspection.table_names()) - MIGRATED_TABLES
        deletes = [f"DELETE FROM {connection.ops.quote_name(table)}" for table in sorted(tables)]
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            # Foreign keys are triggers, which this turns off: the order of tables does not matter.
            cursor.execute("; ".join(["SET LOCAL session_replication_role = replica", *deletes]))
            for table in MIGRATED_TABLES:
                _restore(cursor, table, _migrated[alias, table])
    ContentType.objects.clear_cache()


def _restore(cursor: Any, table: str, content: str) -> None:
    cursor.execute(CONTENT.format(table=table))
    if cursor.fetchone()[0] != content:
        cursor.execute(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)", [content])


class RoutedRunner(PackageRunner, CommittingRunner):
    """Opens a unit of work around each test method, and allows the mirror wherever its primary is allowed."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        _allow_mirror()
        _open_unit_of_work()
        _count_queries_of_mirror()

    def get_databases(self, suite: Any) -> dict[str, bool]:
        found: dict[str, bool] = super().get_databases(suite)
        return {**found, MIRROR: False} if DEFAULT_DB_ALIAS in found else found


def _allow_mirror() -> None:
    validate = SimpleTestCase._validate_databases.__func__  # type: ignore[attr-defined]  # private to Django

    def with_mirror(cls: type[SimpleTestCase]) -> frozenset[str]:
        found: frozenset[str] = validate(cls)
        return found | {MIRROR} if DEFAULT_DB_ALIAS in found else found

    SimpleTestCase._validate_databases = classmethod(with_mirror)  # type: ignore[attr-defined]


def _open_unit_of_work() -> None:
    from django_pglb.context import open_routing
    from django_pglb.core.routing_session import RoutingSession
    from django_pglb.signals import statement_routed

    call = unittest.TestCase._callTestMethod  # type: ignore[attr-defined]  # the only place after setUp() and before tearDown()

    def calling(self: Any, method: Any) -> None:
        if not isinstance(self, TransactionTestCase):
            call(self, method)
            return
        counts: Counter[tuple[str, str]] = Counter()

        def count(decision: Decision, **_: Any) -> None:
            counts[decision] += 1

        statement_routed.connect(count)
        try:
            with open_routing(RoutingSession()):
                call(self, method)
        finally:
            statement_routed.disconnect(count)
            _write_decisions(self.id(), counts)

    unittest.TestCase._callTestMethod = calling  # type: ignore[attr-defined]


def _write_decisions(test: str, counts: Counter[tuple[str, str]]) -> None:
    line = {"test": test, "decisions": [[alias, reason, count] for (alias, reason), count in counts.items()]}
    # Appended line by line: the processes of a parallel run share the file.
    with Path(os.environ["PGLB_SUITE_DECISIONS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _count_queries_of_mirror() -> None:
    """Let `assertNumQueries` count what the mirror answers in the primary's place."""
    enter, leave = CaptureQueriesContext.__enter__, CaptureQueriesContext.__exit__

    def entering(self: Any) -> Any:
        if self.connection.alias == DEFAULT_DB_ALIAS and not connections[MIRROR].pglb_is_forbidden:  # type: ignore[attr-defined]
            connections[MIRROR].queries_log = self.connection.queries_log
            connections[MIRROR].force_debug_cursor = True
        return enter(self)

    def leaving(self: Any, *exc_info: Any) -> None:
        if self.connection.alias == DEFAULT_DB_ALIAS:
            connections[MIRROR].force_debug_cursor = self.force_debug_cursor
        leave(self, *exc_info)

    CaptureQueriesContext.__enter__, CaptureQueriesContext.__exit__ = entering, leaving  # type: ignore[method-assign]
