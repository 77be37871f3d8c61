"""The checks know the packages that need a setting beside ours, and are silent once it is there. `tox -e others` tries the real ones."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_pglb import conf
from django_pglb.neighbours import WRITERS, find_problems
from django_pglb.routers import ReplicaRouter

from .test_checks import databases, ids

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")

ENGINE = "django_pglb.backends.postgresql"
ROUTER = "django_pglb.routers.ReplicaRouter"
LOAD_BALANCING = "django_pglb.middleware.LoadBalancingMiddleware"
BEGIN, END = "django_pglb.ignored_writes.Begin", "django_pglb.ignored_writes.End"
SILK = "silk.middleware.SilkyMiddleware"
IN_TABLE = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_table"}
OF_AUTHORS = {"CACHEOPS": {"guestbook.author": {"timeout": 60}}}
WITH_TABLE = {"CACHES": {**settings.CACHES, "throttles": IN_TABLE}}


class CacheOnPrimary:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "default" if model._meta.app_label == "django_cache" else None


class AuthorsOnPrimary:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "default" if model._meta.label_lower == "guestbook.author" else None


class Pinning:
    """As other packages for replicas have it: it answers for every model."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica1"


class AllOnPrimary:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "default"


class CacheElsewhere:
    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model._meta.app_label == "django_cache" else None


def found(*apps: str, middleware: tuple[str, ...] = (), **changes: Any) -> list[tuple[str, str]]:
    with override_settings(**changes):
        return [(problem.id.value, f"{problem.message} {problem.hint}") for problem in find_problems(conf.read()[0], apps, middleware)]


def found_ids(*apps: str, middleware: tuple[str, ...] = (), **changes: Any) -> list[str]:
    return [check for check, _ in found(*apps, middleware=middleware, **changes)]


@pytest.mark.parametrize("path", WRITERS)
def test_middleware_that_writes_is_to_be_put_between(path: str) -> None:
    """Anywhere else it makes each page one that has written."""
    ((check, text),) = found(middleware=(LOAD_BALANCING, path))
    assert check == "W031"
    assert path in text
    assert BEGIN in text
    assert found_ids(middleware=(LOAD_BALANCING, BEGIN, path, END)) == []
    assert found_ids(middleware=(LOAD_BALANCING, BEGIN, END, path)) == ["W031"]
    assert found_ids(middleware=(path, LOAD_BALANCING)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["W030"]),
        ({"CACHALOT_ENABLED": False}, []),
        ({"CACHALOT_USE_UNSUPPORTED_DATABASE": True}, ["W029"]),
        ({"CACHALOT_ADDITIONAL_SUPPORTED_DATABASES": {ENGINE}}, ["W029"]),
        ({"CACHALOT_DATABASES": ["default", "replica2"]}, ["W029"]),
        ({"CACHALOT_DATABASES": ["default"]}, []),
        ({"CACHALOT_DATABASES": ["default"], "CACHALOT_ADDITIONAL_SUPPORTED_DATABASES": {ENGINE}}, []),
    ],
    ids=str,
)
def test_cachalot_may_cache_what_the_primary_answers(changes: dict[str, Any], expected: list[str]) -> None:
    """It invalidates by alias, so what is cached by a replica's stays; without a setting it does not know our engine."""
    assert found_ids("cachalot", **changes) == expected
    assert found_ids("shop", **changes) == []
    for _, text in found("cachalot", **changes):
        assert 'CACHALOT_DATABASES to the primaries only, ["default"]' in text
        assert ENGINE in text


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"CACHEOPS": {"guestbook.author": {"ops": "get", "timeout": 60}}}, ["guestbook.Author"]),
        ({"CACHEOPS": {"guestbook.*": {"timeout": 60}}}, ["guestbook.Author, guestbook.Entry, guestbook.Note may"]),
        ({"CACHEOPS": {"*.*": {"timeout": 60}}}, ["other models"]),
        ({"CACHEOPS": {"Guestbook.Author": None, "*.*": None}}, []),
        ({"CACHEOPS": {"*.*": {"timeout": 60}}, "CACHEOPS_ENABLED": False}, []),
        ({**OF_AUTHORS, "DATABASE_ROUTERS": [f"{__name__}.AuthorsOnPrimary", ROUTER]}, []),
        (
            {**OF_AUTHORS, "DATABASE_ROUTERS": [ROUTER, f"{__name__}.AuthorsOnPrimary"]},
            ["guestbook.Author"],
        ),
        ({}, []),
    ],
    ids=str,
)
def test_cacheops_must_fill_its_cache_from_the_primary(changes: dict[str, Any], names: list[str]) -> None:
    """A row that was cached from a replica which is behind hides what was written; a router above ours sends its models to the primary."""
    messages = found("cacheops", **changes)
    assert [check for check, _ in messages] == ["W029"] * len(names)
    for (_, text), name in zip(messages, names, strict=True):
        assert name in text


def test_waffle_must_fill_its_cache_from_the_primary() -> None:
    """It has a setting for that."""
    ((check, text),) = found("waffle")
    assert check == "W029"
    assert "WAFFLE_READ_FROM_WRITE_DB" in text
    assert found("waffle", WAFFLE_READ_FROM_WRITE_DB=True) == []


@pytest.mark.parametrize(
    ("app", "changes", "expected"),
    [
        ("dbbackup", {}, ["W030"]),
        ("dbbackup", {"DBBACKUP_CONNECTOR_MAPPING": {ENGINE: "dbbackup.db.postgresql.PgDumpBinaryConnector"}}, []),
        ("dbbackup", {"DBBACKUP_CONNECTORS": {"default": {"CONNECTOR": "dbbackup.db.postgresql.PgDumpConnector"}}}, []),
        ("django_extensions", {}, ["W030"]),
        ("django_extensions", {"DJANGO_EXTENSIONS_RESET_DB_POSTGRESQL_ENGINES": [ENGINE]}, []),
    ],
)
def test_packages_that_know_engines_by_name_are_told_ours(app: str, changes: dict[str, Any], expected: list[str]) -> None:
    """Without that they do less, and say nothing."""
    assert found_ids(app, **changes) == expected


@pytest.mark.parametrize(
    ("routers", "expected"),
    [
        ([ROUTER], ["W032"]),
        ([f"{__name__}.CacheOnPrimary", ROUTER], []),
        ([ROUTER, f"{__name__}.CacheOnPrimary"], ["W032"]),
        ([f"{__name__}.AuthorsOnPrimary", ROUTER], ["W032"]),
        ([f"{__name__}.AuthorsOnPrimary", f"{__name__}.CacheOnPrimary", ROUTER], []),
        ([ROUTER, f"{__name__}.CacheElsewhere"], []),
        ([f"{__name__}.Pinning", ROUTER], ["W005", "W032"]),
        ([f"{__name__}.AllOnPrimary", ROUTER], ["W005"]),
    ],
    ids=str,
)
def test_a_cache_table_needs_a_router_in_front(routers: list[str], expected: list[str]) -> None:
    """Which is no router that sends reads past ours."""
    assert ids(**WITH_TABLE, DATABASE_ROUTERS=routers) == expected


def test_a_cache_table_without_replicas_needs_nothing() -> None:
    """Nor does a project whose caches are elsewhere, as the test site's."""
    assert ids(**WITH_TABLE, PGLB={"default": {"REPLICAS": []}}) == []


def test_a_router_in_front_sends_its_models_to_the_primary() -> None:
    """The means that the checks recommend: Django asks the routers in order."""
    from django.db import router

    from django_pglb import routing_session

    from .guestbook.models import Author

    with override_settings(DATABASE_ROUTERS=[AuthorsOnPrimary(), ReplicaRouter()]), routing_session():
        assert router.db_for_read(Author) == "default"


def test_an_engine_of_ones_own_is_named() -> None:
    """The message has the engine that the project uses."""
    changes = databases("default", ENGINE="tests.engine")
    assert "tests.engine" in found("cachalot", **changes)[0][1]
