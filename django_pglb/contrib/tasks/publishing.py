"""Puts the pointer of whoever enqueues a task among its arguments, as its message has no other place."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone

from ...context import current_scope
from ...core.job import Consistency
from ...core.policy import worth_waiting_for
from ...core.routing_session import ClusterSession
from ...health.clock import now
from ...jobs import DELAY_SECONDS, NOTHING, bounds_of_text, consistency_of, has_replicas, text_for_job
from ...runtime import get_runtime

if TYPE_CHECKING:
    from ...core.routing_session import Bound
    from ...runtime import Runtime

# The name of the reserved argument. Public: it is seen where the arguments of tasks are shown, and in what was stored by earlier versions.
POINTER: Final = "_pglb_pointer"


def prepared(task: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return `task` and its keyword arguments as the backend should get them.

    May ask the primary, and a store. Where the argument is there already, as in what a stored task is enqueued by again, it holds too.
    """
    others = {name: value for name, value in kwargs.items() if name != POINTER}
    consistency = consistency_of(task.func)
    text = text_for_job(earlier=kwargs.get(POINTER) or None)
    if text is None:
        must_say_so = consistency is not Consistency.ALWAYS and has_replicas()
        return task, {**others, POINTER: NOTHING} if must_say_so else others
    if consistency is Consistency.DELAYED and task.get_backend().supports_defer and _is_too_early(text):
        task = _deferred(task)
    return task, {**others, POINTER: text}


def _deferred(task: Any) -> Any:
    """Return `task`, to run no sooner than replicas have had their time.

    It cannot be put back by the worker: its result, which somebody may wait for, would tell of success, or be a failure's.
    """
    soonest = timezone.now() + timedelta(seconds=DELAY_SECONDS)
    return task if task.run_after is not None and task.run_after >= soonest else task.using(run_after=soonest)


def _is_too_early(text: str) -> bool:
    """Say whether no replica is known to have what `text` binds by, and one will probably. Asks nobody: this may be a request."""
    runtime = get_runtime()
    return any(
        _is_waited_for(runtime, primary, bound)
        for primary, bound in bounds_of_text(text).items()
        if primary in runtime.config.clusters and runtime.needs_pointers(primary)
    )


def _is_waited_for(runtime: Runtime, primary: str, bound: Bound) -> bool:
    pointer, wall = bound.pointer, time.time()
    if pointer is None or bound.pinned_until > wall:
        return False  # no replica will ever do
    routing = current_scope().routing
    if routing is None or not routing.is_request:
        runtime.wait_for_first_look(primary)
    topology = runtime.topology(primary)
    # Not whether one has probably reached it by now, as reads are routed: to be wrong there costs a read, and here the whole task.
    if any(host.replay_lsn is not None and host.replay_lsn >= pointer.exact_lsn for host in topology.online):
        return False
    cluster = ClusterSession(primary)
    cluster.bind(bound.shifted(now() - wall))
    return worth_waiting_for(cluster, topology, now()) is not None
