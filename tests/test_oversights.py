"""Middleware and router that are missing or misplaced, on a server that runs no checks: what its log says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import router
from django.test import Client, override_settings

from django_pglb import oversights
from django_pglb.core.decision import Reason
from django_pglb.signals import statement_routed

from .fix_site import Served, Site
from .guestbook.models import Entry

OURS = "django_pglb.routers.ReplicaRouter"
ABOVE = f"{__name__}.Above"


class Above:
    """Sends the reads of all models to the primary."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "default"


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It has had no request yet."""
    oversights.watch()
    yield
    oversights.request_started.disconnect(dispatch_uid=oversights.UID)
    statement_routed.disconnect(dispatch_uid=oversights.UID)


@pytest.fixture
def routers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets `DATABASE_ROUTERS`, which Django reads once."""

    def use(*paths: str) -> override_settings:
        monkeypatch.setattr(router, "_routers", list(paths))
        router.__dict__.pop("routers", None)
        return override_settings(DATABASE_ROUTERS=list(paths))

    yield use
    monkeypatch.undo()
    router.__dict__.pop("routers", None)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "django_pglb.routing" and record.levelno > logging.DEBUG]


def test_missing_middleware_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """With the first request, by the words of the check."""
    ours, *others = settings.MIDDLEWARE
    with override_settings(MIDDLEWARE=others):
        for _ in range(2):
            Client().get("/newest/")
    (line,) = said(caplog)
    assert "LoadBalancingMiddleware is missing" in line
    assert ours in line


def test_first_requests_of_several_threads_log_it_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Each of them may have been told of its request before any has looked."""
    with override_settings(MIDDLEWARE=settings.MIDDLEWARE[1:]):
        for _ in range(2):
            oversights.look()
    assert len(said(caplog)) == 1


def test_missing_router_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture, routers: Any) -> None:
    """The same."""
    with routers():
        for _ in range(2):
            Client().get("/newest/")
    (line,) = said(caplog)
    assert "ReplicaRouter is missing" in line


def test_first_read_past_a_router_that_is_too_low_is_logged(site: Site, caplog: pytest.LogCaptureFixture, routers: Any) -> None:
    """It counts as `explicit`, and would look as if somebody had named the primary."""
    Entry.objects.create(text="x")
    site.wait_until_seen()
    with routers(ABOVE, OURS):
        for _ in range(2):
            assert Reason.EXPLICIT in Served(Client().get("/newest/")).reasons
    (line,) = said(caplog)
    assert "default past ReplicaRouter (explicit)" in line


@pytest.mark.parametrize("changes", [{}, {"PGLB_ENABLED": False, "MIDDLEWARE": []}, {"PGLB": {"default": {"REPLICAS": []}}}])
def test_nothing_is_said_where_all_is_meant(site: Site, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]) -> None:
    """Also where nothing is to go to a replica."""
    with override_settings(**changes):
        Client().get("/newest/")
    assert said(caplog) == []
