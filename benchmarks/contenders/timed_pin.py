"""A pin by the clock, as Rails' `DatabaseSelector` does it: for two seconds after a write, its session reads from the primary."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings as site
from django.db import DEFAULT_DB_ALIAS
from django.http import HttpRequest, HttpResponse

# Rails' default.
PIN_SECONDS = 2.0
READ_METHODS = ("GET", "HEAD")
# Rails keeps the time in the session, and that, by default, in a signed cookie. In a session of Django's it would be a second write.
COOKIE = "last_write"

_readers: ContextVar[str] = ContextVar("_readers", default=DEFAULT_DB_ALIAS)


def configure(settings: dict[str, Any]) -> None:
    """Install the middleware and the router below."""
    settings["MIDDLEWARE"].insert(0, f"{__name__}.timed_pin")
    settings["DATABASE_ROUTERS"] = [f"{__name__}.TimedPinRouter"]


def timed_pin(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: choose whom the request reads from, and note when it wrote, which is what all but GET and HEAD are taken to do."""
    replicas = [alias for alias in site.DATABASES if alias != DEFAULT_DB_ALIAS]

    def answer(request: HttpRequest) -> HttpResponse:
        reads = request.method in READ_METHODS
        token = _readers.set(random.choice(replicas) if reads and not is_pinned(request) else DEFAULT_DB_ALIAS)
        try:
            response = get_response(request)
        finally:
            _readers.reset(token)
        if not reads:
            response.set_signed_cookie(COOKIE, str(time.time()), httponly=True, samesite="Lax")
        return response

    return answer


def is_pinned(request: HttpRequest) -> bool:
    """Whether the browser that asks has written within `PIN_SECONDS`."""
    last_write = request.get_signed_cookie(COOKIE, default=None)
    return last_write is not None and time.time() - float(last_write) < PIN_SECONDS


class TimedPinRouter:
    """Reads from the host that the middleware chose, outside requests from the primary."""

    def db_for_read(self, model: object, **hints: object) -> str:
        """Return the request's choice."""
        return _readers.get()

    def db_for_write(self, model: object, **hints: object) -> str:
        """Return the primary."""
        return DEFAULT_DB_ALIAS

    def allow_relation(self, one: object, other: object, **hints: object) -> bool:
        """Say yes: all hosts hold the same rows."""
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool:
        """Say yes for the primary only."""
        return db == DEFAULT_DB_ALIAS
