"""The request middleware: opens a routing session around each request and saves what the request wrote."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import pointers, runtime
from .carriers import hand_over, read_carried
from .conf import get_usable_config
from .context import current_scope, open_request, open_routing, was_opened
from .core.routing_session import RoutingSession
from .forks import begin_anew_if_forked
from .identity import RequestIdentities
from .streaming import keep_streaming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .pointers import Saved

# What answers those who must say who they are. An API whose first way to do so is the session answers 403 to a wrong token, too.
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class LoadBalancingMiddleware:
    """Put it first in `MIDDLEWARE`, at least above `SessionMiddleware`: what that saves must be covered by the pointer.

    Sync and async. Finds the identities of the request lazily: a request that reads nothing from a cluster costs nothing.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not apps.is_installed("django_pglb"):
            raise ImproperlyConfigured("LoadBalancingMiddleware needs django_pglb in INSTALLED_APPS: it listens to logins from there.")
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._acall(request)
        routing = self._open(request)
        with open_routing(routing):
            try:
                response: HttpResponseBase = self.get_response(request)
            except BaseException:
                # Nobody turns errors into responses, or the worker is told to end: what was committed binds all the same.
                if routing is not None and self._must_save_at_end(routing):
                    self._save_without_response(routing)
                raise
            if routing is not None and self._must_save(response, routing):
                self._save(request, response, routing)
        return self._annotated(response, routing)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        routing = self._open(request)
        with open_routing(routing):
            try:
                response: HttpResponseBase = await self.get_response(request)
            except BaseException:
                # The same, or the client has gone.
                if routing is not None and self._must_save_at_end(routing):
                    await asyncio.shield(sync_to_async(self._save_without_response)(routing))
                raise
            if routing is not None and self._must_save(response, routing):
                # The client may go while this waits for the request's thread, in which something else of it may be running.
                await asyncio.shield(sync_to_async(self._save)(request, response, routing))
        return self._annotated(response, routing)

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: object, kwargs: object) -> None:
        """Note whether Django will wrap the view in a transaction (`ATOMIC_REQUESTS`): that alone must not keep reads on the primary."""
        # The unit in force, which a middleware may have opened inside the request's: the block is opened in it.
        routing = current_scope().routing
        if routing is not None and was_opened(request):
            databases = settings.DATABASES
            aliases = runtime.get_runtime().config.primary_of
            atomic = [alias for alias in aliases if databases.get(alias, {}).get("ATOMIC_REQUESTS")]
            routing.view_atomic = frozenset(atomic).difference(exempt_from_atomic(view))

    def _open(self, request: HttpRequest) -> RoutingSession | None:
        begin_anew_if_forked()
        process = runtime.get_runtime()
        clusters = process.config.clusters
        if not clusters:
            return None
        safe_in = process.config.safe_in(request.method)
        routing = RoutingSession(
            RequestIdentities(request, process.identify, partial(read_carried, request)),
            is_request=True,
            safe_method=len(safe_in) == len(clusters),
        )
        routing.safe_in = safe_in
        if not routing.safe_method:
            routing.down_at_start = process.primaries_known_to_be_down()
            routing.outside_at_start = process.uses_outside()
        open_request(request, routing)
        return routing

    def _must_save(self, response: HttpResponseBase, routing: RoutingSession) -> bool:
        routing.was_refused = response.status_code in REFUSED
        if keep_streaming(response, routing):
            return pointers.may_have_written(routing) or pointers.must_save(routing)
        return self._must_save_at_end(routing)

    def _must_save_at_end(self, routing: RoutingSession) -> bool:
        routing.end()
        return pointers.may_have_written(routing) or pointers.must_save(routing)

    def _save(self, request: HttpRequest, response: HttpResponseBase, routing: RoutingSession) -> None:
        hand_over(response, request, self._save_without_response(routing))

    def _save_without_response(self, routing: RoutingSession) -> list[Saved]:
        return pointers.save_now(routing, also_unseen=True)

    def _annotated(self, response: HttpResponseBase, routing: RoutingSession | None) -> HttpResponseBase:
        if routing is not None and runtime.get_runtime().config.has_debug_header:
            timing = [response.headers["Server-Timing"]] if "Server-Timing" in response.headers else []
            timing += [f'pglb;desc="{alias} {reason} {count}"' for alias, reason, count in routing.decisions()]
            if timing:
                response.headers["Server-Timing"] = ", ".join(timing)
        return response


def exempt_from_atomic(view: Callable[..., Any]) -> set[str]:
    """Return the aliases for which Django opens no block around `view`, as `@non_atomic_requests` says.

    With a primary these are all of its cluster, since a block by a replica's alias would be the primary's: Django is told so on the view.
    """
    exempt: set[str] = getattr(view, "_non_atomic_requests", set())
    if exempt:
        exempt.update([alias for alias, home in get_usable_config().home_of.items() if home in exempt])
    return exempt
