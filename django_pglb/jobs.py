"""Units of work of background jobs, whatever runs them: what a job's message carries, and how the job reads.

The modules of `contrib` put the text of `text_for_job()` into the message, and open `job_session` around the job.
"""

from __future__ import annotations

import logging
import time
from asyncio import _get_running_loop  # the documented one raises where there is none
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from .context import current_scope, open_routing, use_primary
from .core.job import Consistency
from .core.policy import worth_waiting_for
from .core.problem import did_you_mean, listed, shown
from .core.routing_session import UNBOUND, Bound, ClusterSession
from .engine import connection_to
from .health.clock import now
from .pointers import bound_to_export, capture_bound, capture_bound_once, load_bound
from .runtime import get_runtime
from .stores.carried import sign, unsign
from .units import routing_session
from .waiting import has_shown_pointer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .context import ScopeManager
    from .core.routing_session import RoutingSession
    from .runtime import Runtime

log = logging.getLogger("django_pglb.jobs")

# What `Consistency.DELAYED` waits for replicas, once.
DELAY_SECONDS = 1

# What no signature fits: who receives it reads from the primary.
UNKNOWN = "unknown"

# What a message carries where nothing binds its job. Where there is not even this, nobody has looked.
NOTHING = ""


def consistency_of(job: object) -> Consistency:
    """Return how `job` reads: its `db_consistency`, else `PGLB_TASK_CONSISTENCY`. Raises `ImproperlyConfigured` for what is no level."""
    level = getattr(job, "db_consistency", None)
    if level is None:
        return get_runtime().config.task_consistency
    return as_consistency(level, of=str(getattr(job, "name", job)))


def as_consistency(level: object, *, of: str) -> Consistency:
    """Return `level` as what it names. Raises `ImproperlyConfigured`, naming whose it is (`of`)."""
    if isinstance(level, str) and level in set(Consistency):
        return Consistency(level)
    guess = did_you_mean(level, Consistency) or "."
    raise ImproperlyConfigured(f"db_consistency of {of}: {shown(level)} is not a level{guess} Choose one of {listed(Consistency)}.")


# --- Publishing ---


def text_for_job(*, after_others: bool = False, earlier: str | None = None) -> str | None:
    """Return the text that a job which is published now must carry, so that it sees what its publisher wrote; None: nothing binds it.

    One round trip to the primary if it was used since the last call in this process. Inside an open transaction, among rows that are being
    streamed, and in an event loop, where nothing may be asked, the text sends the job to the primary. `after_others`: the job follows
    others that ran elsewhere, whose writes it must see as well. `earlier`: the text that it carried when it was published before, and
    which holds on.
    Any thread may call it. Raises `ImproperlyConfigured`; `PrimaryProtected` where the publisher's session would have to be loaded.
    """
    runtime = get_runtime()
    routing = current_scope().routing
    clusters = [primary for primary in runtime.config.clusters if runtime.needs_pointers(primary)]
    bounds = {primary: _bound_for_job(runtime, routing, primary, after_others=after_others) for primary in clusters}
    if earlier is not None:
        carried = bounds_of_text(earlier)
        bounds = {primary: bound.merged(carried.get(primary, UNBOUND)) for primary, bound in bounds.items()}
    return sign(bounds) if any(bound.pointer or bound.pinned_until for bound in bounds.values()) else None


def has_replicas() -> bool:
    """Say whether any job could read from a replica: not where all is switched off, nor in tests, where they mirror the primary."""
    runtime = get_runtime()
    return any(cluster.replicas and primary not in runtime.mirrored for primary, cluster in runtime.config.clusters.items())


def _bound_for_job(runtime: Runtime, routing: RoutingSession | None, primary: str, *, after_others: bool) -> Bound:
    connection = connection_to(primary)
    if connection.pglb_is_forbidden:
        return UNBOUND  # what the running test case forbids was neither written nor read
    if connection.pglb_transaction_is_open or connection.pglb_is_busy or _get_running_loop() is not None:
        return _primary_only(runtime, primary)
    if routing is not None and not after_others:
        return bound_to_export(runtime, routing, primary)
    # Without a unit of work nobody knows what this thread wrote. The process knows whether it used the primary at all.
    if routing is None and not (after_others or runtime.last_use(primary)):
        return UNBOUND
    bound = UNBOUND if routing is None else bound_to_export(runtime, routing, primary)
    if primary in runtime.primaries_known_to_be_down():
        # It may be no concern of this job, which must not be held up by one that hangs.
        return bound.merged(_primary_only(runtime, primary))
    cluster = ClusterSession(primary) if routing is None else routing.cluster(primary)
    return bound.renewed((capture_bound if after_others else capture_bound_once)(runtime, cluster))


def _primary_only(runtime: Runtime, primary: str) -> Bound:
    """Return what keeps a job on the primary for as long as any write is remembered (wall time)."""
    return Bound(pinned_until=time.time() + runtime.config.clusters[primary].pointer_seconds)


# --- Running ---


def bounds_of_text(text: str) -> dict[str, Bound]:
    """Return what binds a job that carries `text` (wall time), per cluster: the primary, where it cannot be read, which is logged once."""
    runtime = get_runtime()
    try:
        bounds = unsign(text, max_age=None)
    except ValueError:
        _note_unreadable(is_unreadable=True)
        return {primary: _primary_only(runtime, primary) for primary in runtime.config.clusters}
    _note_unreadable(is_unreadable=False)
    return bounds


class job_session(routing_session):  # noqa: N801 - used like a function
    """Open the unit of work of a job whose message carried `text`, and which reads as `consistency` says.

    A text that was forged, damaged, or signed with another `SECRET_KEY` sends the job to the primary. Age does not matter: to compare
    positions is free. Overrides that are in force where the job is run eagerly do not hold in it. Context manager and decorator,
    sync and async.
    """

    def __init__(self, text: str | None, consistency: Consistency) -> None:
        super().__init__()
        self._text = text
        self._consistency = consistency

    def _fresh(self) -> job_session:
        return job_session(self._text, self._consistency)

    def _read_pointer(self) -> dict[str, Bound]:
        return {} if self._text is None else bounds_of_text(self._text)

    def _opening(self, routing: RoutingSession) -> Iterable[ScopeManager]:
        forced = [use_primary()] if self._consistency is Consistency.ALWAYS else []
        return [open_routing(routing), *forced]


def _note_unreadable(*, is_unreadable: bool) -> None:
    """Log that texts cannot be read, and that they can again."""
    if not get_runtime().notices.is_news("texts of jobs", is_unreadable or None):
        return
    if is_unreadable:
        log.warning("A job carries a pointer that is not signed by this site: such jobs read from the primary. Check SECRET_KEY.")
    else:
        log.warning("Pointers of jobs can be read again.")


def should_come_again() -> bool:
    """Say whether the job that is open here would better run a little later: a replica is online, and has not yet what the job must see.

    Asks the one that is least behind, as what is known of it may be an interval old; the job's reads there need no proof any more.
    """
    routing = current_scope().routing
    if routing is None:
        return False
    runtime = get_runtime()
    return any(_is_waited_for(runtime, routing, primary) for primary in runtime.config.clusters if runtime.needs_pointers(primary))


def _is_waited_for(runtime: Runtime, routing: RoutingSession, primary: str) -> bool:
    cluster = routing.cluster(primary)
    load_bound(runtime, routing, cluster)
    if cluster.bound.pointer is None:
        return False
    runtime.wait_for_first_look(primary)
    host = worth_waiting_for(cluster, runtime.topology(primary), now())
    return host is not None and not has_shown_pointer(runtime, cluster, host)
