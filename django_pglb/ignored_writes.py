"""Two middlewares that stand around others, as of profilers and audit logs: what those write binds nobody, what the view writes does.

`Begin` above them, `End` below. There is nothing to patch so, and the others keep their own names and places in `MIDDLEWARE`, which some of
them look for. The hooks of Django's handler (`process_view()` and its like) run beside the view, where writes count as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.utils.module_loading import import_string

from .conf import refuse
from .context import heed_writes, ignore_writes
from .core.problem import CheckId, Problem, shown
from .references import is_or_extends

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .context import ScopeManager

BEGIN = "django_pglb.ignored_writes.Begin"
END = "django_pglb.ignored_writes.End"
# They write what the next page must find: who is signed in, and what was said to them.
NEEDED = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
OURS = "django_pglb.middleware.LoadBalancingMiddleware"
EXAMPLE = f'Write "{BEGIN}", then the middleware whose writes bind nobody, then "{END}".'


class Boundary:
    """Runs everything below it in a scope. Sync and async."""

    sync_capable = True
    async_capable = True

    scope: Callable[[], ScopeManager]

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        # Servers run no checks, and without its end the beginning would take the promise away from every view.
        refuse(find_problems(list(settings.MIDDLEWARE or ())))
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._acall(request)
        with self.scope():
            response: HttpResponseBase = self.get_response(request)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        async with self.scope():
            response: HttpResponseBase = await self.get_response(request)
        return response


class Begin(Boundary):
    """What the middleware between this and `End` writes binds nobody, and keeps no page on the primary."""

    scope = staticmethod(ignore_writes)


class End(Boundary):
    """Writes below this count again."""

    scope = staticmethod(heed_writes)


def find_problems(paths: Sequence[object]) -> Iterator[Problem]:
    """Find what is wrong with the boundaries in `MIDDLEWARE`: they come in pairs, and nothing that is needed stands between them."""
    begun: str | None = None
    for path in paths:
        if is_or_extends(path, BEGIN, Begin):
            if begun is not None:
                yield _problem(f"{shown(path)} comes twice before {shown(END)}.")
            begun = str(path)
        elif is_or_extends(path, END, End):
            if begun is None:
                yield _problem(f"{shown(path)} without {shown(BEGIN)} above it.")
            begun = None
        elif begun is not None and _is_or_extends(path, OURS):
            yield _problem(f"{shown(path)} is between {shown(BEGIN)} and {shown(END)}, and opens a unit of work in which writes count.")
        elif begun is not None and any(_is_or_extends(path, needed) for needed in NEEDED):
            yield _problem(f"{shown(path)} is between {shown(BEGIN)} and {shown(END)}, so pages would miss what it has written.")
    if begun is not None:
        yield _problem(f"{shown(begun)} without {shown(END)} below it, so what every view writes would bind nobody.")


def _is_or_extends(entry: object, path: str) -> bool:
    return is_or_extends(entry, path, import_string(path))


def _problem(what: str) -> Problem:
    return Problem(CheckId.IGNORED_WRITES_WITHOUT_END, f"MIDDLEWARE: {what}", EXAMPLE)
