"""What `PREPARE` tells each session, and that the next unit of work does not inherit it: value, host and reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, connections, transaction

from django_pglb import connection_for_read, current_decisions, routing_session, use_replicas
from django_pglb.checks import find_problems
from django_pglb.core.decision import Reason

from .fix_site import ALIASES, NAME, Site
from .guestbook.models import Entry
from .tenants import prepare
from .tenants.engines import tenant

REPLICAS = {"replica1", "replica2"}
SHOW = {
    "setting": "SELECT coalesce(current_setting('app.tenant', true), ''), inet_server_port()",
    "role": "SELECT current_user::text, inet_server_port()",
    "path": "SELECT current_setting('search_path'), inet_server_port()",
    "function": "SELECT coalesce(current_setting('app.tenant', true), ''), inet_server_port()",
}
NOTHING = {"setting": "", "role": "postgres", "path": '"$user", public', "function": ""}
BECOME = "CREATE OR REPLACE FUNCTION become(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$"


def seen(name: str) -> dict[str, str]:
    return {"setting": name, "role": name, "path": f"{name}, public", "function": name}


@pytest.fixture(params=["setting", "role", "path", "function"])
def way(request: pytest.FixtureRequest, site: Site, settings: Any) -> Iterator[str]:
    """How the sessions of the site are prepared."""
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute(BECOME)
        for name in ("ann", "bob"):
            admin.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name}")  # type: ignore[arg-type]
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": f"tests.tenants.prepare.{request.param}"}}
    site.wait_until_online()
    site.wait_until_seen()
    prepare.told.clear()
    yield request.param
    connections.close_all()


def show(site: Site, way: str, using: Any = None) -> tuple[str, str]:
    """What a statement sees of the session that it runs in, and on which host."""
    with (using or connection_for_read()).cursor() as cursor:
        cursor.execute(SHOW[way])
        what, port = cursor.fetchone()
    return what, next(alias for alias in ALIASES if site.host(alias).port == port)


def as_tenant(name: str) -> Any:
    tenant.set(name)
    return routing_session()


def reads() -> set[Reason]:
    return {decision.reason for decision in current_decisions()}


def test_every_host_is_told_once_for_each_unit_of_work(site: Site, way: str) -> None:
    """Replica and primary; what is told is neither a write nor a change of the user's."""
    with as_tenant("ann"):
        what, alias = show(site, way)
        assert (what, alias in REPLICAS) == (seen("ann")[way], True)
        assert show(site, way) == (what, alias)
        assert prepare.told == ["ann"]
        assert show(site, way, connection) == (what, "default")
        assert show(site, way, connection) == (what, "default")
        assert prepare.told == ["ann", "ann"]
        assert show(site, way) == (what, alias)
        assert reads() == {Reason.REPLICA, Reason.EXPLICIT}


def test_next_unit_of_work_inherits_nothing(site: Site, way: str) -> None:
    """On the same persistent connections: neither another tenant's session, nor one that was told nothing at all."""
    for name in ("ann", "nobody", "bob", "ann", "nobody"):
        expected = NOTHING[way] if name == "nobody" else seen(name)[way]
        with as_tenant(name), use_replicas():
            assert show(site, way, connections["default"]) == (expected, "default")
            for alias in sorted(REPLICAS):
                what, host = show(site, way, connections[alias])
                assert (what, host in REPLICAS) == (expected, True)


@pytest.mark.parametrize("by", ["streamed", "copied"])
def test_next_unit_of_work_inherits_nothing_however_it_was_told(site: Site, settings: Any, by: str) -> None:
    """By `stream()` and `copy()` of psycopg's cursors, too."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": f"tests.tenants.prepare.{by}"}}
    for name, expected in (("ann", "ann"), ("nobody", ""), ("bob", "bob")):
        with as_tenant(name):
            assert show(site, "setting")[0] == expected
            assert show(site, "setting", connection) == (expected, "default")


def test_tenant_that_is_looked_up_is_told_to_what_follows(site: Site, settings: Any) -> None:
    """What has to be read before the tenant is known is read in a unit of work of its own: the page is told afterwards."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.setting"}}
    with as_tenant("nobody"):
        with routing_session():
            assert show(site, "setting")[0] == ""
            assert show(site, "setting", connection)[0] == ""
        tenant.set("ann")
        assert show(site, "setting")[0] == "ann"
        assert show(site, "setting", connection)[0] == "ann"


def test_code_outside_a_unit_of_work_inherits_nothing(site: Site, way: str) -> None:
    """It is told anew before each statement, as nobody knows whose it is."""
    with as_tenant("ann"):
        assert show(site, way, connection) == (seen("ann")[way], "default")
    tenant.set("nobody")
    assert show(site, way) == (NOTHING[way], "default")
    tenant.set("bob")
    assert show(site, way) == (seen("bob")[way], "default")
    tenant.set("nobody")
    assert show(site, way) == (NOTHING[way], "default")


def test_unit_of_work_inside_another_has_its_own(site: Site, way: str) -> None:
    """Each goes on with what is its own."""
    with as_tenant("ann"):
        assert show(site, way)[0] == seen("ann")[way]
        with as_tenant("bob"):
            assert show(site, way)[0] == seen("bob")[way]
        tenant.set("ann")
        assert show(site, way)[0] == seen("ann")[way]


def test_cursor_that_outlives_its_unit_of_work_is_told_anew(site: Site, way: str) -> None:
    """Where a cursor was opened says nothing of who uses it."""
    with as_tenant("ann"):
        cursor = connection.cursor()
        cursor.execute(SHOW[way])
        assert cursor.fetchone()[0] == seen("ann")[way]
    with as_tenant("nobody"), cursor:
        cursor.execute(SHOW[way])
        assert cursor.fetchone()[0] == NOTHING[way]


def test_blocks_are_told(site: Site, way: str) -> None:
    """In the first statement of a block, after another unit of work on the same connection, and in a server-side cursor."""
    for name in ("ann", "nobody", "bob"):
        expected = NOTHING[way] if name == "nobody" else seen(name)[way]
        with as_tenant(name), transaction.atomic():
            assert show(site, way) == (expected, "default")
            with transaction.atomic(), connection.chunked_cursor() as cursor:
                cursor.execute(SHOW[way])
                assert cursor.fetchone()[0] == expected


def test_rollback_takes_nothing_away(site: Site, way: str) -> None:
    """A unit of work that begins in somebody else's transaction is told there; its rollback brings back what was there before."""
    if way == "function":
        with as_tenant("ann"), transaction.atomic():
            show(site, way)
            with as_tenant("bob"), pytest.raises(OperationalError, match="PREPARE"):
                show(site, way)
        return
    with as_tenant("ann"), transaction.atomic():
        show(site, way)
        with as_tenant("bob"):
            with transaction.atomic():
                assert show(site, way)[0] == seen("bob")[way]
                transaction.set_rollback(True)
            assert show(site, way)[0] == seen("bob")[way]
        transaction.set_rollback(True)
    with as_tenant("nobody"):
        assert show(site, way, connection)[0] == NOTHING[way]
    with as_tenant("ann"):
        assert show(site, way, connection)[0] == seen("ann")[way]


def test_session_that_somebody_has_changed_is_not_taken_from_them(site: Site, settings: Any) -> None:
    """A unit of work inside another may need a new connection, with which the outer one would go on without its own settings."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.function"}}
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute(BECOME)
    other = "SELECT current_setting('app.other', true)"
    with as_tenant("ann"):
        with connection.cursor() as cursor:
            cursor.execute("SET app.other = 'mine'")
        with as_tenant("bob"), pytest.raises(OperationalError, match="PREPARE"):
            show(site, "function", connection)
        with connection.cursor() as cursor:
            cursor.execute(other)
            assert cursor.fetchone() == ("mine",)
    with as_tenant("bob"):
        assert show(site, "function", connection) == ("bob", "default")


def test_server_side_cursor_goes_on_as_it_began(site: Site, settings: Any) -> None:
    """Another unit of work in between has its own session, and the rows that are still to come are those of the first one."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.setting"}}
    with as_tenant("ann"), transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute("SELECT current_setting('app.tenant', true) FROM generate_series(1, 4)")
        assert cursor.fetchmany(2) == [("ann",), ("ann",)]
        with as_tenant("bob"):
            assert show(site, "setting", connection)[0] == "bob"
        tenant.set("ann")
        assert cursor.fetchmany(2) == [("ann",), ("ann",)]


def test_new_connection_is_told(site: Site, way: str) -> None:
    """Also one that takes the place of a broken one."""
    with as_tenant("ann"), use_replicas():
        show(site, way)
        for each in ALIASES:
            connections[each].close()
        assert show(site, way)[0] == seen("ann")[way]
        assert show(site, way, connection) == (seen("ann")[way], "default")


@pytest.fixture
def pooled(way: str, settings: Any) -> Iterator[str]:
    """All connections come from pools of one."""
    connections.close_all()
    before = {alias: connections[alias].settings_dict["OPTIONS"] for alias in ALIASES}
    for alias in ALIASES:
        connections[alias].settings_dict["OPTIONS"] = {**before[alias], "pool": {"min_size": 1, "max_size": 1}}
    yield way
    connections.close_all()
    for alias in ALIASES:
        connections[alias].close_pool()
        connections[alias].settings_dict["OPTIONS"] = before[alias]


def test_pool_hands_on_nothing(site: Site, pooled: str) -> None:
    """The next thread that gets the connection is told its own, or nothing."""
    found: list[tuple[str, str]] = []

    def read(name: str) -> None:
        with as_tenant(name):
            found.append(show(site, pooled))
            found.append(show(site, pooled, connection))
        connections.close_all()

    for name in ("ann", "nobody", "bob"):
        thread = threading.Thread(target=read, args=[name])
        thread.start()
        thread.join(60)
    expected = (seen("ann")[pooled], NOTHING[pooled], seen("bob")[pooled])
    assert [what for what, _ in found] == [what for each in expected for what in (each, each)]
    assert [host in REPLICAS for _, host in found] == [True, False] * 3


def test_role_that_django_assumes_is_assumed_again(site: Site, settings: Any) -> None:
    """To reset a role is not to go back to the one that logs in."""
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        for name in ("ann", "app"):
            admin.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name}")  # type: ignore[arg-type]
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.role"}}
    connections.close_all()
    options = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {**options, "assume_role": "app"}
    try:
        with as_tenant("ann"):
            assert show(site, "role", connection) == ("ann", "default")
        with as_tenant("nobody"):
            assert show(site, "role", connection) == ("app", "default")
    finally:
        connections.close_all()
        connection.settings_dict["OPTIONS"] = options


def test_nothing_runs_in_a_session_that_could_not_be_prepared(site: Site, settings: Any) -> None:
    """What the callable raises is the caller's, and what it did half is undone before the next try."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.failing"}}
    with as_tenant("nobody"), pytest.raises(PermissionError):
        show(site, "setting", connection)
    with as_tenant("ann"):
        assert show(site, "setting", connection) == ("ann", "default")


def test_coroutine_function_is_refused(site: Site, settings: Any) -> None:
    """Also where nobody has run the checks: what nobody awaits tells nothing."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.awaited"}}
    with as_tenant("ann"), pytest.raises(ImproperlyConfigured, match="coroutine"):
        show(site, "setting", connection)


def test_users_own_reset_does_not_take_it_away(site: Site, settings: Any) -> None:
    """After DISCARD ALL the session is told once more."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.setting"}}
    with as_tenant("ann"):
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
        assert show(site, "setting", connection) == ("ann", "default")


def test_switched_off_sessions_are_prepared_all_the_same(site: Site, settings: Any) -> None:
    """Policies do not know that the package is off: each cursor is told before it is handed out."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "PREPARE": "tests.tenants.prepare.setting"}}
    settings.PGLB_ENABLED = False
    for name in ("ann", "nobody"):
        tenant.set(name)
        for alias in ("default", "replica1"):
            assert show(site, "setting", connections[alias]) == ("" if name == "nobody" else name, "default")
        assert Entry.objects.count() == 0


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ("tests.nowhere.at_all", "cannot be imported"),
        ("tests.tenants.prepare.NOT_CALLABLE", "cannot be called"),
        ("tests.tenants.prepare.awaited", "coroutine"),
    ],
)
def test_wrong_name_is_an_error(settings: Any, named: str, what: str) -> None:
    """Found before anything runs."""
    settings.PGLB = {"default": {**django_settings.PGLB["default"], "PREPARE": named}}
    (problem,) = [problem for problem in find_problems() if problem.id == "E039"]
    assert what in problem.message


def test_pooler_is_warned_of(settings: Any) -> None:
    """It may hand on what was told."""
    replicas = {"replica1": {"POOLED": True}, "replica2": {}}
    settings.PGLB = {"default": {**settings.PGLB["default"], "REPLICAS": replicas, "PREPARE": "tests.tenants.prepare.setting"}}
    assert [problem.id for problem in find_problems() if problem.id == "W015"] == ["W015"]
