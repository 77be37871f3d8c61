"""What clients carry themselves, and the doors that it comes and goes by: the signed cookie, and the signed header.

Both carry the same text. One that is forged, damaged or too old is as good as absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import global_settings, settings
from django.utils.cache import patch_cache_control

from .runtime import get_runtime
from .stores.base import VALUE_LENGTH
from .stores.carried import merge, renew, sign, unsign_or_nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .core.routing_session import Bound
    from .pointers import Saved

COOKIE_NAME = "pglb"
DEFAULT_SESSION_COOKIE = global_settings.SESSION_COOKIE_NAME

# What web servers take for one header, about; some sixty pointers of one cluster. Each costs a signature, so longer ones are not looked at,
# nor what is too short to carry anything, of which there might be thousands.
MAX_HEADER_LENGTH = 8192


def cookie_name() -> str:
    """Return the name of our cookie. Sites that share a host give their session cookies names of their own, and so ours differ, too."""
    session_cookie = settings.SESSION_COOKIE_NAME
    return COOKIE_NAME if session_cookie == DEFAULT_SESSION_COOKIE else f"{COOKIE_NAME}_{session_cookie}"


def read_carried(request: HttpRequest) -> dict[str, Bound]:
    """Return what the client of `request` carries for each cluster (wall time)."""
    config = get_runtime().config
    if config.pointer_header is None and cookie_name() not in request.COOKIES:
        return {}
    max_age = config.longest_pointer_seconds
    return merge(unsign_or_nothing(text, max_age=max_age) for text in _texts(request, config.pointer_header))


def hand_over(response: HttpResponseBase, request: HttpRequest, saved: Iterable[Saved]) -> None:
    """Let the client carry what it is bound by, so that losing the store loses nobody's pointer.

    What was only seen is left to the store: pages that write nothing set no cookie, so that caches may keep them.
    """
    process = get_runtime()
    config = process.config
    for_header = {entry.primary: entry.bound for entry in saved if entry.is_for_client}
    for_cookie = {primary: bound for primary, bound in for_header.items() if process.sets_cookie(primary)}
    if not (for_cookie or (for_header and config.pointer_header)):
        return
    carried = {primary: bound for primary, bound in read_carried(request).items() if primary in config.clusters}
    if for_cookie:
        _set_cookie(response, sign(renew(carried, for_cookie)), max_age=config.longest_pointer_seconds)
    if config.pointer_header:
        response.headers[config.pointer_header] = sign(renew(carried, for_header))
    # Whoever got it from a shared cache would put somebody else's pointer, which may be an older one, in the place of their own.
    patch_cache_control(response, private=True)


def _texts(request: HttpRequest, header: str | None) -> Iterator[str | None]:
    yield request.COOKIES.get(cookie_name())
    if header is not None:
        # A client with several requests at a time may hold several; WSGI joins repeated headers by commas as well.
        value = request.META.get("HTTP_" + header.upper().replace("-", "_"), "")
        if len(value) <= MAX_HEADER_LENGTH:
            yield from (text.strip() for text in value.split(",") if len(text) > VALUE_LENGTH)


def _set_cookie(response: HttpResponseBase, text: str, *, max_age: float) -> None:
    response.set_cookie(
        cookie_name(),
        text,
        max_age=round(max_age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
