"""Which line of the project's own code is running: what a message about that code must name, and never a wrong one.

Django, asgiref and this package are skipped, and so is what Python runs threads with. The search ends, with no line, where the stack stops
telling who asked: at a thread that serves a coroutine, whose own frame is on another stack; and at Django's request handler, whose callers
are middleware and servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.db.models import Model
from django.template.base import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType, FrameType

    CodeLine = tuple[str, int]
    """A file and a line number. A plain tuple: it is pickled with the instances that it is remembered for."""

NOT_THE_PROJECT = frozenset({"django", "django_pglb", "asgiref", "jinja2", "asyncio", "concurrent", "threading"})
QUERY = "django.db.models.query"
WHO_ASKED_IS_UNKNOWN = ("django.core.handlers.", "django.core.management.")

# From a row to the project's code there are about ten frames, through template tags and forms some dozens.
MOST_FRAMES = 100
# From the row on, through what a model does when it is made, to the queryset that makes it.
MOST_FRAMES_TO_QUERY = 20

_SERVE_COROUTINE: CodeType = SyncToAsync.thread_handler.__code__
_RENDER_NODE: CodeType = Node.render_annotated.__code__
_REFRESH: CodeType = Model.refresh_from_db.__code__
_SAVE: CodeType = Model.save_base.__code__


def find_line(start: FrameType | None, *, past_saves_of: object = None) -> CodeLine | None:
    """Return the innermost line of the project from `start` outwards, in a file of Python or a template; None if the stack does not tell.

    `past_saves_of` an object: not a line of its own `save()`, but of whoever called it.
    """
    for frame in _outwards(start, MOST_FRAMES):
        node = frame.f_locals["self"] if frame.f_code is _RENDER_NODE else None
        # One that a tag has built by itself is of no template.
        if node is not None and node.token is not None:
            return node.origin.name, node.token.lineno
        name = frame.f_globals.get("__name__")
        if frame.f_code is _SERVE_COROUTINE or (name and name.startswith(WHO_ASKED_IS_UNKNOWN)):
            return None
        # What has no name was generated, as by a template engine: its line numbers are of no file.
        if name and name.partition(".")[0] not in NOT_THE_PROJECT and not _is_save_of(frame, past_saves_of):
            return frame.f_code.co_filename, frame.f_lineno
    return None


def find_query(start: FrameType | None) -> FrameType | None:
    """Return the frame of the queryset that makes an instance, seen from where that is made; None if no query does."""
    return next((frame for frame in _outwards(start, MOST_FRAMES_TO_QUERY) if _is_query(frame)), None)


def find_refresh(query: FrameType) -> tuple[Any, Iterable[str] | None] | None:
    """Return the instance that a query refreshes (`refresh_from_db`, a deferred field), and the fields asked for; None if it does not."""
    caller = next((frame for frame in _outwards(query, MOST_FRAMES_TO_QUERY) if not _is_query(frame)), None)
    return (caller.f_locals["self"], caller.f_locals["fields"]) if caller is not None and caller.f_code is _REFRESH else None


def is_insert(start: FrameType | None) -> bool:
    """Say whether the `save` that sends a signal was told to insert, which the signal does not tell."""
    save = next((frame for frame in _outwards(start, MOST_FRAMES_TO_QUERY) if frame.f_code is _SAVE), None)
    return save is not None and bool(save.f_locals["force_insert"])


def _outwards(frame: FrameType | None, most: int) -> Iterator[FrameType]:
    while frame is not None and most:
        yield frame
        frame, most = frame.f_back, most - 1


def _is_query(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == QUERY


def _is_save_of(frame: FrameType, instance: object) -> bool:
    code = frame.f_code
    return instance is not None and code.co_name == "save" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is instance
