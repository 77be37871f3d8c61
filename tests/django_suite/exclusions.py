"""What the runs with the package leave out, and why.

In the routed run test cases commit what they write, because a read inside the transaction that a `TestCase` opens on the primary
may go nowhere else; and they may use the mirror, a second alias of the same database.
"""

from __future__ import annotations

SUITES = {
    "backends": "looks at connections themselves, at what one alias has logged and wrapped; the mirrored run has it",
}

COUNTS_TRANSACTION = "counts its queries, among which are BEGIN and COMMIT once no transaction is open around it"
NEEDS_TRANSACTION = "can only pass inside a transaction that is never committed"
WRITES_TO_EVERY_ALIAS = "replaces the router by its own and inserts the same rows through each alias, and the mirror is the same database"

TESTS = {
    "admin_views.test_multidb.MultiDatabaseTests": WRITES_TO_EVERY_ALIAS,
    "auth_tests.test_admin_multidb.MultiDatabaseTests": WRITES_TO_EVERY_ALIAS,
    # Rows whose foreign keys point nowhere, which only a deferred constraint lets stand.
    "admin_views.tests.AdminViewDeletedObjectsTest": NEEDS_TRANSACTION,
    "auth_tests.test_views.UUIDUserTests.test_admin_password_change": NEEDS_TRANSACTION,
    # The message of a failed statement depends on whether a transaction was broken by it.
    "basic.tests.SelectOnSaveTests.test_select_on_save_lying_update": NEEDS_TRANSACTION,
    # EXPLAIN of SELECT … FOR UPDATE.
    "queries.test_explain.ExplainTests.test_basic": NEEDS_TRANSACTION,
    "auth_tests.test_management.CreatePermissionsMultipleDatabasesTests": COUNTS_TRANSACTION,
    "basic.tests.ModelInstanceCreationTests.test_save_parent_primary_with_default": COUNTS_TRANSACTION,
    "queries.test_bulk_update.BulkUpdateNoteTests.test_batch_size": COUNTS_TRANSACTION,
    "queries.test_bulk_update.BulkUpdateNoteTests.test_foreign_keys_do_not_lookup": COUNTS_TRANSACTION,
    "queries.test_bulk_update.BulkUpdateNoteTests.test_multiple_fields": COUNTS_TRANSACTION,
    "queries.test_bulk_update.BulkUpdateNoteTests.test_simple": COUNTS_TRANSACTION,
    "queries.test_bulk_update.BulkUpdateTests.test_database_routing": COUNTS_TRANSACTION,
    "multiple_database.tests.QueryTestCase.test_db_selection": "asserts that a queryset without using() reads from `default`",
}

# In the mirrored run as well.
WITH_ROUTER = {
    "basic.tests.ModelRefreshTests.test_refresh_overwrites_queryset_using": (
        "expects an error from a QuerySet that names a database which is not there: what may have been a replica is read from the primary"
    ),
}


def is_excluded(test: str, run: str) -> bool:
    """Say whether a run leaves out the test with this id."""
    if run == "routed" and test.split(".")[0] in SUITES:
        return True
    names = {"mirrored": WITH_ROUTER, "routed": {**WITH_ROUTER, **TESTS}}.get(run, {})
    return any(test == name or test.startswith(f"{name}.") for name in names)


# Tests that read through the mirror, at least: half of what was counted with Django 5.2. Elsewhere nearly every test writes first.
LEAST_TESTS_ON_MIRROR = {
    "queries": 95,
    "prefetch_related": 45,
    "async": 15,
    "sessions_tests": 70,
    "auth_tests": 175,
    "admin_views": 160,
    "basic": 2,
}
