"""One site and two ways to route it: ours, and a naive router on Django's own engine, to see where that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from asgiref.local import Local
from django.conf import settings
from django.contrib import admin
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_pglb import current_decisions, routing_session
from django_pglb.core.decision import DecisionCount, Reason

from .fix_site import ALIASES, Served, Site

REPLICAS = frozenset({"replica1", "replica2"})
PLAIN_ENGINE = "django.db.backends.postgresql"
OUR_MIDDLEWARE = "django_pglb.middleware.LoadBalancingMiddleware"

Page = Callable[[HttpRequest], HttpResponse]


class Routed:
    """The site, the way that it is routed, and assertions about who served, which say nothing where the naive router does."""

    def __init__(self, site: Site, *, is_naive: bool) -> None:
        self.site = site
        self.is_naive = is_naive

    def lag(self) -> None:
        """Let both replicas have everything until now, and nothing of what follows."""
        self.settle()
        for replica in self.site.cluster.replicas:
            replica.pause_replay()

    def settle(self) -> None:
        """Wait until both replicas have everything, and the checker has seen it."""
        for replica in self.site.cluster.replicas:
            replica.resume_replay()
        if self.is_naive:
            self.site.cluster.wait_until_replicas_caught_up()
        else:
            self.site.wait_until_seen()

    def unit(self, *identity: str) -> AbstractContextManager[Any]:
        """A unit of work of whoever `identity` names."""
        if self.is_naive:
            return nullcontext()
        return routing_session(identity=[("test", name) for name in identity])

    def visit(self, client: Client, page: Page, method: str = "get", **arguments: Any) -> Any:
        """Have `client` ask for a page that stands beside its test."""
        urls = (path("page/", page), path("admin/", admin.site.urls))
        with override_settings(ROOT_URLCONF=urls):
            return getattr(client, method)("/page/", **arguments)

    def assert_served(self, response: Any, aliases: str | Collection[str], *reasons: Reason) -> None:
        """Assert where all statements of a request ran, its own writes apart, and why."""
        if not self.is_naive:
            _assert_decisions(Served(response).decisions, aliases, reasons)

    def assert_reads(self, aliases: str | Collection[str], *reasons: Reason) -> None:
        """Assert where all statements of this unit of work ran so far, its own writes apart, and why."""
        if not self.is_naive:
            _assert_decisions(current_decisions(), aliases, reasons)


def _assert_decisions(decisions: Collection[DecisionCount], aliases: str | Collection[str], reasons: Collection[Reason]) -> None:
    assert decisions
    assert {decision.alias for decision in decisions if decision.reason is Reason.WRITE} <= {"default"}, decisions
    reads = [decision for decision in decisions if decision.reason is not Reason.WRITE]
    allowed = {aliases} if isinstance(aliases, str) else set(aliases)
    assert {decision.alias for decision in reads} <= allowed, reads
    found = {decision.reason for decision in reads}
    if Reason.BEHIND in found:
        # Who finds out that the replicas are behind, the router or the cursor, is a matter of when the checker has looked. If it was the
        # router, it knows that an object came from the primary, and reads there what belongs to it.
        found -= {Reason.INSTANCE} - set(reasons)
    assert found == set(reasons), reads


@pytest.fixture(params=["pglb", pytest.param("naive", marks=pytest.mark.naive)])
def routed(request: pytest.FixtureRequest, site: Site) -> Iterator[Routed]:
    """The site under each router. A test is expected to fail under the naive one if it is marked `naive_is_wrong`."""
    is_naive = request.param == "naive"
    with _naively_routed() if is_naive else nullcontext():
        # Last, so that a fixture that fails is never taken for what is expected.
        if is_naive:
            _expect_failure(request)
        yield Routed(site, is_naive=is_naive)


def _expect_failure(request: pytest.FixtureRequest) -> None:
    mark = request.node.get_closest_marker("naive_is_wrong")
    if mark is not None:
        (reason,) = mark.args
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True, **mark.kwargs))


@contextmanager
def _naively_routed() -> Iterator[None]:
    """Take away everything of ours: the router, the middleware, and the engine, which would repair what a router gets wrong."""
    middleware = [path for path in settings.MIDDLEWARE if path != OUR_MIDDLEWARE]
    engines = {alias: connections.settings[alias]["ENGINE"] for alias in ALIASES}
    connections.close_all()
    # Every thread's wrappers are put aside, also those of a pool's threads, which outlive a test.
    ours, connections._connections = connections._connections, Local(connections.thread_critical)
    try:
        for alias in ALIASES:
            connections.settings[alias]["ENGINE"] = PLAIN_ENGINE
        with override_settings(DATABASE_ROUTERS=["tests.corners.naive.NaiveRouter"], MIDDLEWARE=middleware):
            yield
    finally:
        connections.close_all()
        for alias, engine in engines.items():
            connections.settings[alias]["ENGINE"] = engine
        connections._connections = ours
