"""What another engine does in `_cursor()` happens on every host, before the statement: value, host and reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper as Djangos
from django.test import override_settings

from django_pglb import connection_for_read, current_decisions, routing_session, runtime, use_replicas
from django_pglb.backends.mixin import LoadBalancedMixin
from django_pglb.checks import find_problems
from django_pglb.core.decision import Reason
from django_pglb.core.problem import CheckId

from .fix_site import ALIASES, NAME, Site
from .guestbook.models import Entry
from .tenants import engines
from .tenants.engine import base
from .tenants.engines import tenant

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")

ENGINE = "tests.tenants.engine"
OURS = "django_pglb.backends.postgresql"
WHOSE = "SELECT current_setting('app.tenant', true), inet_server_port()"


@contextmanager
def engine(wrapper: Any) -> Iterator[None]:
    """Let all aliases have this engine."""
    before = {alias: connections.settings[alias]["ENGINE"] for alias in ALIASES}
    connections.close_all()
    ours = {alias: connections[alias] for alias in ALIASES}
    base.DatabaseWrapper = wrapper
    for alias in ALIASES:
        connections.settings[alias]["ENGINE"] = ENGINE
        del connections[alias]
    try:
        yield
    finally:
        connections.close_all()
        for alias, name in before.items():
            connections.settings[alias]["ENGINE"] = name
            connections[alias] = ours[alias]
        base.DatabaseWrapper = None


def whose(site: Site, using: Any = None) -> tuple[str, str]:
    """Whose rows a statement would see, and on which host."""
    with (using or connection_for_read()).cursor() as cursor:
        cursor.execute(WHOSE)
        who, port = cursor.fetchone()
    return who, next(alias for alias in ALIASES if site.host(alias).port == port)


def whose_by_rows() -> str:
    """The same by a server-side cursor."""
    with connection_for_read().chunked_cursor() as cursor:
        cursor.execute("SELECT current_setting('app.tenant', true)")
        (row,) = cursor.fetchall()
    return str(row[0])


def reads() -> set[Reason]:
    return {decision.reason for decision in current_decisions() if decision.reason is not Reason.WRITE}


@pytest.fixture
def told() -> Iterator[None]:
    """The tenant is ann for this test."""
    token = tenant.set("ann")
    yield
    tenant.reset(token)


TELLING = (
    engines.Below,
    engines.Between,
    engines.Above,
    engines.OwnMethod,
    engines.Heir,
    engines.ByCursor,
    engines.ByItsOwnCursor,
    engines.ByWrapper,
    engines.ByCreateCursor,
)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("wrapper", TELLING)
def test_session_is_told_on_every_host(site: Site, wrapper: Any) -> None:
    """A page reads its own tenant from a replica, and writes on the primary; what the engine sends is nobody's write, nor state."""
    with engine(wrapper):
        for name in ("ann", "bob"):
            tenant.set(name)
            with routing_session():
                who, alias = whose(site)
                assert (who, alias != "default") == (name, True)
                assert whose_by_rows() == name
                assert [entry.pk for entry in Entry.objects.iterator()] == []
                assert reads() == {Reason.REPLICA}
                assert {decision.reason for decision in current_decisions()} == {Reason.REPLICA}
                assert whose(site, connection) == (name, "default")
                assert reads() == {Reason.REPLICA, Reason.EXPLICIT}
                assert whose(site) == (name, alias)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("wrapper", TELLING)
def test_statement_that_is_moved_is_told_where_it_runs(site: Site, wrapper: Any) -> None:
    """A write by a replica's alias, a read after a write, a savepoint, and a read whose replica has broken."""
    with engine(wrapper):
        with routing_session(), connections["replica1"].cursor() as cursor:
            cursor.execute("INSERT INTO guestbook_entry (text, created) VALUES (current_setting('app.tenant'), now()) RETURNING text")
            assert cursor.fetchall() == [("ann",)]
            assert whose(site, connections["replica2"]) == ("ann", "default")
            assert reads() == {Reason.WROTE}
        with routing_session(), transaction.atomic():
            with transaction.atomic():
                assert whose(site) == ("ann", "default")
            assert reads() == {Reason.TRANSACTION}
        with routing_session(), use_replicas():
            _, alias = whose(site)
            with site.host("default").connect(dbname=NAME) as _, site.host(alias).connect(dbname=NAME) as admin:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'site'")
            who, another = whose(site)
            assert (who, another != "default") == ("ann", True)


CONNECTING = (engines.ByConnect, engines.ByState, engines.ByNewConnection)


@pytest.mark.parametrize("wrapper", CONNECTING)
def test_what_is_told_while_connecting_is_nobodys(site: Site, wrapper: Any) -> None:
    """Each host's connection is told; no unit of work has written, nor changed its session."""
    with engine(wrapper), routing_session():
        connection.ensure_connection()
        who, alias = whose(site)
        assert (who, alias != "default") == ("connected", True)
        assert {decision.reason for decision in current_decisions()} == {Reason.REPLICA}


def test_what_the_primary_is_told_replicas_know(site: Site) -> None:
    """An attribute that is set on the primary's connection; what a replica's has told its session it remembers itself."""
    with engine(engines.ByAttribute), routing_session():
        wrapper: Any = connections["default"]
        for name in ("ann", "bob", "ann"):
            wrapper.set_tenant(name)
            assert whose(site, connection) == (name, "default")
            who, alias = whose(site)
            assert (who, alias != "default") == (name, True)
        mark = site.log_end(alias)
        assert whose(site) == ("ann", alias)
        assert [text for text in site.statements(alias, mark) if "set_config" in text] == []
        connections[alias].close()
        assert whose(site) == ("ann", alias)


TOLD = (
    engines.ByAttribute,
    engines.ByCreatedCursor,
    engines.ByDefault,
    engines.ByDict,
    engines.ByEnsureConnection,
    engines.ByMethods,
    engines.ByObject,
    engines.ByParameters,
    engines.ByPart,
    engines.ByProperty,
    engines.ByStatement,
)


@pytest.mark.parametrize("uses_primary", [False, True], ids=["replica only", "both"])
@pytest.mark.parametrize("wrapper", TOLD)
def test_however_the_primary_is_told(site: Site, wrapper: Any, uses_primary: bool) -> None:
    """From page to page, and within one; whether or not anything runs on the primary in between."""
    with engine(wrapper):
        told: Any = connections["default"]
        with routing_session():
            who, alias = whose(site)
            assert (who, alias != "default") == ("nobody", True)
        for name in ("ann", "bob", "bob", "ann"):
            told.set_tenant(name)
            with routing_session():
                if uses_primary:
                    assert whose(site, connection) == (name, "default")
                for _ in range(2):
                    who, alias = whose(site)
                    assert (who, alias != "default") == (name, True)
                if uses_primary:
                    assert whose(site, connection) == (name, "default")
        with routing_session():
            for name in ("bob", "ann"):
                told.set_tenant(name)
                if uses_primary:
                    assert whose(site, connection) == (name, "default")
                who, alias = whose(site)
                assert (who, alias != "default") == (name, True)


def test_attribute_that_only_a_helper_names(site: Site) -> None:
    """What the engine hands its connection to may look at it, too; who puts it there need not be the engine."""
    with engine(engines.ByHelper), routing_session():
        wrapper: Any = connections["default"]
        for name in ("ann", "bob"):
            wrapper.whose = name
            who, alias = whose(site)
            assert (who, alias != "default") == (name, True)
        del wrapper.whose
        assert whose(site)[0] == "nobody"


def test_monitoring_of_djangos_own_classes_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into Django's classes leads to ours as it did to Django's."""

    def watched(self: Any) -> Any:
        return self._cursor()

    monkeypatch.setattr(BaseDatabaseWrapper, "cursor", watched)
    monkeypatch.setattr(base, "DatabaseWrapper", type("Wrapper", (LoadBalancedMixin, Djangos), {"__module__": __name__}))
    assert problems(dict.fromkeys(ALIASES, ENGINE)) == []
    assert not base.DatabaseWrapper._pglb_opens_by_engine


def test_engine_is_djangos_own_without_a_cluster(site: Site) -> None:
    """With everything switched off, theirs works as on Django's, and the primary is told by its own."""
    with override_settings(PGLB_ENABLED=False), engine(engines.tenants_above()):
        wrapper: Any = connections["default"]
        wrapper.set_schema("mine")
        for alias in ("default", "replica1"):
            with connections[alias].cursor() as cursor:
                cursor.execute("SHOW search_path")
                assert cursor.fetchone() == ("mine, public",)
                assert not hasattr(cursor, "requested")
        wrapper.set_schema_to_public()


def test_other_engines_cost_nothing() -> None:
    """Where nobody overrides anything, nothing is looked at."""
    from django_pglb.backends.postgresql.base import DatabaseWrapper

    assert not DatabaseWrapper._pglb_opens_by_engine
    assert DatabaseWrapper._cursor is LoadBalancedMixin._cursor
    assert "cursor" not in vars(DatabaseWrapper)


# --- django-tenants ---


@pytest.fixture
def schemas(site: Site) -> Iterator[Site]:
    """Two tenants' schemas, each with a table of entries."""
    create = "CREATE SCHEMA {0}; CREATE TABLE {0}.guestbook_entry (LIKE public.guestbook_entry INCLUDING ALL);"
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        for name in ("one", "two"):
            admin.execute(create.format(name))  # type: ignore[arg-type]
    site.wait_until_seen()
    yield site
    connections.close_all()
    with site.host("default").connect(dbname=NAME, autocommit=True) as admin:
        admin.execute("DROP SCHEMA one CASCADE; DROP SCHEMA two CASCADE")


@pytest.mark.parametrize("limited", [False, True], ids=["each", "limited"])
@pytest.mark.parametrize("layered", [engines.tenants_below, engines.tenants_above], ids=["below", "above"])
def test_django_tenants(schemas: Site, settings: Any, layered: Callable[[], Any], limited: bool) -> None:
    """Each tenant's rows are written into its schema, and read from there on replicas, by one set_tenant() on the primary."""
    settings.TENANT_LIMIT_SET_CALLS = limited
    with engine(layered()):
        wrapper: Any = connections["default"]
        for name in ("one", "two"):
            wrapper.set_schema(name)
            with routing_session(identity=("tenant", name)):
                Entry.objects.create(text=f"of {name}")
        schemas.wait_until_seen()
        for name in ("one", "two", "one", "public"):
            wrapper.set_schema(name)
            expected = [] if name == "public" else [f"of {name}"]
            with routing_session(identity=("tenant", name)):
                assert [entry.text for entry in Entry.objects.all()] == expected
                assert [entry.text for entry in Entry.objects.iterator()] == expected
                assert reads() == {Reason.REPLICA}
                with transaction.atomic():
                    assert [entry.text for entry in Entry.objects.using("default").iterator()] == expected
                    assert Entry.objects.count() == len(expected)
                with use_replicas():
                    assert [entry.text for entry in Entry.objects.using("replica1")] == expected
                assert reads() == {Reason.REPLICA, Reason.TRANSACTION, Reason.STALE_ALLOWED}
        wrapper.set_schema_to_public()


# --- Engines that cannot be honoured ---


def problems(engine_of: dict[str, str]) -> list[str]:
    databases = {alias: {**django_settings.DATABASES[alias], "ENGINE": engine_of.get(alias, OURS)} for alias in ALIASES}
    with override_settings(DATABASES=databases):
        found = [problem.message for problem in find_problems() if problem.id is CheckId.ENGINE_NOT_HONOURED]
    runtime.reset()
    return found


def test_engine_of_one_alias_only_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica whose connections are not told shows rows of anybody."""
    monkeypatch.setattr(base, "DatabaseWrapper", engines.Below)
    assert problems(dict.fromkeys(ALIASES, ENGINE)) == []
    assert problems({}) == []
    (message, _) = problems({"default": ENGINE})
    assert "_cursor()" in message
    assert len(problems({"replica2": ENGINE})) == 1


def test_mixin_behind_djangos_wrapper_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours would ever be called."""
    monkeypatch.setattr(base, "DatabaseWrapper", engines.WrongOrder)
    assert len(problems(dict.fromkeys(ALIASES, ENGINE))) == 3


def test_method_that_was_replaced_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put on the class later passes the door by."""

    class Replaced(engines.Below):
        pass

    monkeypatch.setattr(base, "DatabaseWrapper", Replaced)
    monkeypatch.setattr(Replaced, "_cursor", lambda self, name=None: None, raising=False)
    assert all("replaced" in message for message in problems(dict.fromkeys(ALIASES, ENGINE)))
    assert len(problems(dict.fromkeys(ALIASES, ENGINE))) == 3
