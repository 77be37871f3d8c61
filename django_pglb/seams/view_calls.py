"""`BaseHandler.make_view_atomic`: Django is about to call the view of a request, and opens the blocks of `ATOMIC_REQUESTS` around it.

No middleware can see that: one below it may answer in the view's place, also in its `process_view`, which is asked after ours. The step
that the handler takes between the last of them and the view, sync or async, is `make_view_atomic`; monitoring libraries step in there, too.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from django.core.handlers.base import BaseHandler

from ..context import current_scope
from ..middleware import exempt_from_atomic

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """Let the unit of work of each request know when its view is called. Safe to call again."""
    step: Any = BaseHandler.make_view_atomic
    if not hasattr(step, "_pglb_seam"):
        BaseHandler.make_view_atomic = _following(step)  # type: ignore[method-assign]


def _following(step: Callable[..., Any]) -> Any:
    @wraps(step)
    def make_view_atomic(handler: BaseHandler, view: Callable[..., Any]) -> Any:
        routing = current_scope().routing
        if routing is not None and not routing.safe_method:
            # Also of those around one that a middleware has opened.
            for unit in (routing, *routing.around()):
                unit.view_ran = True
        exempt_from_atomic(view)
        return step(handler, view)

    make_view_atomic._pglb_seam = True  # type: ignore[attr-defined]
    return make_view_atomic
