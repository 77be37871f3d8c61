"""Says in a header of each response what only the serving process knows."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from django_pglb.core.routing_session import RoutingSession

WORKER = "X-Worker"
BOUND = "X-Bound"


def tell(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, inside ours: adds the worker's pid, and whether a pointer bound the request's reads."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response[WORKER] = str(os.getpid())
        response[BOUND] = "yes" if _is_bound(getattr(request, "_pglb_routing", None)) else "no"
        return response

    return middleware


def _is_bound(routing: RoutingSession | None) -> bool:
    cluster = routing.clusters.get("default") if routing is not None else None
    return cluster is not None and cluster.bound.pointer is not None
