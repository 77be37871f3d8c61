"""What is wrong with `MIDDLEWARE` and `DATABASE_ROUTERS`, logged by servers that run no system checks, as gunicorn and uvicorn.

Such a site works, and reads from the primary: nothing else would ever say so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.core.signals import request_started

from . import conf
from .checks import find_door_problems
from .core.decision import Reason
from .core.problem import CheckId
from .signals import statement_routed

if TYPE_CHECKING:
    from .core.decision import Decision

log = logging.getLogger("django_pglb.routing")

UID = "django_pglb.oversights"


def watch() -> None:
    """Look once, when this process gets its first request. Safe to call again."""
    request_started.connect(look, dispatch_uid=UID)


def look(**_: object) -> None:
    """Log each thing that keeps requests or queries away from replicas."""
    if not request_started.disconnect(dispatch_uid=UID):
        return  # another thread does
    config = conf.get_usable_config()
    for problem in find_door_problems(config) if config.replicas else ():
        if problem.is_error:
            log.error("%s %s", problem.message, problem.hint)
        elif problem.id is CheckId.ROUTER_NOT_FIRST:
            # What the router above answers may be meant, and nobody has asked it yet.
            statement_routed.connect(tell_of_bypass, dispatch_uid=UID)


def tell_of_bypass(decision: Decision, using: str, **_: Any) -> None:
    """Log the first read that went to a primary for no other reason than that somebody named it."""
    if decision.reason is not Reason.EXPLICIT or not statement_routed.disconnect(dispatch_uid=UID):
        return
    log.warning(
        "A read was sent to %s past ReplicaRouter (explicit), which is not the first of DATABASE_ROUTERS: those above may answer for it."
        " Put it first; it asks the others which database owns a model.",
        using,
    )
