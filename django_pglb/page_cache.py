"""Django's page cache for pages that are read from replicas: nobody gets one from it that may lack what they wrote.

Each page is stored with what its reads were bound by, which it therefore shows at least. Who is bound by more is not served from the
cache: the page is made for them, and stored with what they are bound by. Everything else is Django's own.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.middleware import cache as django_cache

from .context import current_scope, routing_of, was_opened
from .core.lsn import Pointer, covers, earlier, later
from .health.clock import now
from .identity import USER
from .pointers import load_bound
from .runtime import get_runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from .core.routing_session import RoutingSession
    from .runtime import Runtime

    # Plain values: they are pickled into a cache that other versions of this package may read.
    Position = tuple[int, int, int]
    Page = dict[str, tuple[Position | None, Position | None]]
    """Of each cluster that was read from: what the page shows at least, and, where reads are monotonic, at most."""

# In place of a connection's number, for what was seen on a page that somebody else has read.
SERIAL_OF_PAGES = -1


class UpdateCacheMiddleware(django_cache.UpdateCacheMiddleware):
    """Put it below `LoadBalancingMiddleware`, in the place of Django's own, together with `FetchFromCacheMiddleware`."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase | str) -> HttpResponseBase | str:
        routing = _routing_of(request)
        if routing is None and was_opened(request):
            return response  # this is above `LoadBalancingMiddleware`: the unit of work that tells what the page shows has ended
        if routing is not None:
            page = _page_of(get_runtime(), routing)
            if page is None:
                return response
            response._pglb_page = page  # type: ignore[union-attr]  # stored with it
        return super().process_response(request, response)


class FetchFromCacheMiddleware(django_cache.FetchFromCacheMiddleware):
    """Put it last, in the place of Django's own, together with `UpdateCacheMiddleware`.

    Asks for the reader's pointer only if there is a page: the store once, and the session if that has not been looked at.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        response: HttpResponse | None = super().process_request(request)
        routing = _routing_of(request)
        if response is None or routing is None or _may_serve(routing, getattr(response, "_pglb_page", None)):
            return response
        request._cache_update_cache = True  # type: ignore[attr-defined]  # so Django's two classes tell each other to store the page
        return None


class CacheMiddleware(UpdateCacheMiddleware, FetchFromCacheMiddleware, django_cache.CacheMiddleware):
    """Both in one, as Django has it: for simple sites, and for `cache_page`."""


def cache_page(timeout: float | None, *, cache: str | None = None, key_prefix: str | None = None) -> Callable[..., Any]:
    """Return a decorator as Django's `cache_page`, for sync and async views. `timeout` is in seconds."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        middleware = CacheMiddleware(view, page_timeout=timeout, cache_alias=cache, key_prefix=key_prefix)
        if iscoroutinefunction(view):

            async def awaiting(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                found = await sync_to_async(middleware.process_request)(request)
                if found is not None:
                    return found
                response = await view(request, *args, **kwargs)
                return await sync_to_async(_store)(middleware, request, response)

            return wraps(view)(awaiting)

        def calling(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            found = middleware.process_request(request)
            return found if found is not None else _store(middleware, request, view(request, *args, **kwargs))

        return wraps(view)(calling)

    return decorate


def _store(middleware: CacheMiddleware, request: HttpRequest, response: Any) -> Any:
    if callable(getattr(response, "render", None)):
        # What a template reads is read when it is rendered, after the view.
        response.add_post_render_callback(partial(middleware.process_response, request))
        return response
    return middleware.process_response(request, response)


def _routing_of(request: HttpRequest) -> RoutingSession | None:
    """Return the unit of work in force, which may be inside the request's."""
    return current_scope().routing or routing_of(request)


def _page_of(runtime: Runtime, routing: RoutingSession) -> Page | None:
    """Return what is known of a page that `routing` has made, or those around it; None if it must not be stored."""
    known: dict[str, tuple[Pointer | None, Pointer | None]] = {}
    for unit in (routing, *routing.around()):
        for primary, cluster in tuple(unit.clusters.items()):
            # What it wrote has no position yet, and may not even be committed.
            if cluster.wrote or (cluster.saw_unknown and runtime.is_monotonic(primary)):
                return None
            if cluster.decisions:
                shows, seen = known.get(primary, (cluster.shows, None))
                known[primary] = earlier(shows, cluster.shows), later(seen, cluster.seen_at_most)
    return {primary: (_position(shows), _position(seen)) for primary, (shows, seen) in known.items()}


def _may_serve(routing: RoutingSession, page: Page | None) -> bool:
    """Say whether a stored page shows all that its reader must see. `page` is None if Django's own classes have stored it."""
    if current_scope().forced == "replicas":
        return True
    runtime = get_runtime()
    concerned = [primary for primary in runtime.config.clusters if runtime.needs_pointers(primary) and (page is None or primary in page)]
    if not all(_shows_enough(runtime, routing, primary, page) for primary in concerned):
        return False
    for primary in concerned:
        seen = _pointer(page[primary][1]) if page is not None else None
        if seen is not None and runtime.is_monotonic(primary):
            routing.cluster(primary).see(SERIAL_OF_PAGES, seen)
    return True


def _shows_enough(runtime: Runtime, routing: RoutingSession, primary: str, page: Page | None) -> bool:
    cluster = routing.cluster(primary)
    if cluster.wrote:
        return False
    load_bound(runtime, routing, cluster)
    if cluster.store_down and runtime.config.clusters[primary].on_store_error == "primary":
        return False
    units = (routing, *routing.around())
    is_complete = cluster.loaded and all(unit.identities.is_complete() for unit in units)
    if not is_complete and not any(USER in dict(unit.identities.known()) for unit in units):
        # A token that this process has not met: whose it is, and what they wrote by other ways, only the view can tell.
        return False
    shown = None if page is None else _pointer(page[primary][0])
    return cluster.bound.pinned_until <= now() and covers(shown, cluster.bound.pointer)


def _position(pointer: Pointer | None) -> Position | None:
    return None if pointer is None else (pointer.timeline, pointer.lsn, pointer.system)


def _pointer(position: Position | None) -> Pointer | None:
    return None if position is None else Pointer(position[0], position[1], system=position[2])
