"""Says in a header of each response what only the serving process knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from django_pglb.context import routing_of
from django_pglb.core.routing_session import RoutingSession

WORKER = "X-Worker"
BOUND = "X-Bound"


@sync_and_async_middleware
def tell(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Middleware, inside ours: adds the worker's pid, and whether a pointer bound the request's reads."""

    def told(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response[WORKER] = str(os.getpid())
        response[BOUND] = "yes" if _is_bound(routing_of(request)) else "no"
        return response

    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> HttpResponse:
            return told(request, await get_response(request))

        return amiddleware

    def middleware(request: HttpRequest) -> HttpResponse:
        return told(request, get_response(request))

    return middleware


def _is_bound(routing: RoutingSession | None) -> bool:
    cluster = routing.clusters.get("default") if routing is not None else None
    return cluster is not None and cluster.bound.pointer is not None
