"""Answers the router and the cursor: where does this statement go, and why?"""

from __future__ import annotations

import logging
from asyncio import _get_running_loop  # the documented one raises where there is none, which costs a microsecond
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from django.db import InternalError

from . import signals
from .context import current_scope
from .core.asker import FOUND
from .core.decision import Decision, Reason
from .core.lease import Lease
from .core.policy import any_replica, is_void, pick, replica_or_primary, standing_rule, unit_rule
from .core.statements import Kind
from .engine import connection_to
from .errors import PrimaryProtected
from .health.clock import now
from .home import is_of_primary
from .pointers import cluster_of, is_nobody_new, load_bound
from .runtime import get_runtime
from .waiting import wait_for_replica

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from threading import BoundedSemaphore

    from .core.policy import Scope
    from .core.routing_session import ClusterSession, RoutingSession
    from .runtime import Runtime

log = logging.getLogger("django_pglb.routing")

UNLIMITED = nullcontext()
# Why the primary answers a read: no replica is usable, or none has what the reader must see.
WITHOUT_REPLICA = frozenset({Reason.NO_REPLICA, Reason.FAILOVER})
FOR_WANT_OF_REPLICA = WITHOUT_REPLICA | {Reason.BEHIND}

PROTECTED = (
    "no replica of {} is usable, and {} reads at a time are all that this process sends to it for want of one (PRIMARY_FALLBACK_LIMIT)"
)
CANNOT_LEAVE = "{} has not replayed what this user wrote, and a transaction is open on it"
READS_ONLY = (
    "a transaction is open on the replica {}, as use_replicas() lets one be, and this statement is not provably a read:"
    " write outside use_replicas(), where a transaction is the primary's"
)


def held_lease(primary: str) -> Lease | None:
    """Return the lease on a replica of the cluster of `primary` that holds here and now, if there is one."""
    scope = current_scope()
    if (
        scope.routing is None
        or (cluster := scope.routing.clusters.get(primary)) is None
        or (lease := cluster.lease) is None
        or lease.scope is not scope
        or lease.state is not cluster.state
        or lease.publisher.topologies.get(primary) is not lease.topology
        or now() >= lease.until
    ):
        return None
    asker = cluster.asker
    # What `asker.has_changed()` says, without a call: this is asked twice for each read.
    user = asker.attributes["user"] if "user" in asker.attributes else None  # noqa: SIM401
    if (user is not asker.user or asker.lazy[FOUND] is not asker.found) and not is_nobody_new(scope.routing, cluster):
        return None
    connection = connection_to(primary)
    if connection.pglb_carries_state or (connection.pglb_transaction_is_open and not connection.pglb_is_views_block_unused()):
        return None
    return lease


def route_by_lease(primary: str, instance: Any = None) -> Decision | None:
    """Return where a read of the cluster of `primary` goes, if the rules have answered that already."""
    lease = held_lease(primary)
    if lease is None or (instance is not None and is_of_primary(instance, primary)):
        return None
    lease.cluster.latest = lease.decision
    return lease.decision


def route_read(primary: str, instance: Any = None, *, is_bound: bool = False) -> Decision:
    """Return where a read of the cluster of `primary` goes: the router's question.

    `is_bound`: the reader's pointer counts, also where `use_replicas()` says that stale is fine.
    """
    scope = _bound(current_scope(), is_bound=is_bound)
    if scope.routing is None:
        return Decision(primary, Reason.OUTSIDE_SESSION)
    from_primary = scope.related_to == primary or (instance is not None and is_of_primary(instance, primary))
    runtime = get_runtime()
    cluster = cluster_of(runtime, scope.routing, primary)
    if scope.forced is None and (not cluster.loaded or cluster.asker.has_changed()) and _get_running_loop() is not None:
        decision = _undecided(runtime, primary)
    else:
        decision = _decide(runtime, scope, scope.routing, primary, from_primary=from_primary)
    cluster.latest, cluster.binds_next = decision, is_bound
    return decision


def is_next_bound(primary: str) -> bool:
    """Say whether the statement that is about to run is one that the router was told to be bound. To be asked once for each."""
    scope = current_scope()
    if scope.routing is None or scope.forced != "replicas":
        return False
    cluster = scope.routing.cluster(primary)
    is_bound, cluster.binds_next = cluster.binds_next, False
    return is_bound


def _bound(scope: Scope, *, is_bound: bool) -> Scope:
    return scope._replace(forced=None) if is_bound and scope.forced == "replicas" else scope


def place_on_replica(alias: str, kind: Kind, *, is_bound: bool = False) -> Decision:
    """Return where a statement goes that somebody addressed to the replica `alias`: the cursor's question."""
    primary = get_runtime().config.primary_of[alias]
    if kind is Kind.WRITE:
        return place_write(primary)
    if kind is Kind.LOCKING_READ:
        return Decision(primary, Reason.WRITE)
    routing = current_scope().routing
    if routing is not None:
        cluster_of(get_runtime(), routing, primary)
    return place_again(primary, wanted=alias, is_bound=is_bound)


def place_again(primary: str, reason: Reason | None = None, *, wanted: str | None = None, is_bound: bool = False) -> Decision:
    """Return where a read goes that has no host yet, or needs another one. `reason` is why it needs another one."""
    scope = _bound(current_scope(), is_bound=is_bound)
    if scope.routing is None:
        return Decision(primary, Reason.OUTSIDE_SESSION)
    decision = _decide(get_runtime(), scope, scope.routing, primary, wanted=wanted)
    return decision if reason is None else decision._replace(reason=reason)


def is_for_want_of_replica(primary: str) -> bool:
    """Say whether the router's latest answer was the primary, only for want of a replica."""
    routing = current_scope().routing
    latest = None if routing is None else routing.cluster(primary).latest
    return latest is not None and latest.alias == primary and latest.reason in FOR_WANT_OF_REPLICA


def place_without_primary(primary: str, decision: Decision, *, is_bound: bool = False) -> Decision | None:
    """Return which replica answers a read for which `decision` names a primary that cannot be reached; None if none may.

    The odds were against every replica, or one has shown to be behind, when the primary was thought to be there. Now there is nothing to
    lose: whoever is online is asked (again), and proves it or not.
    """
    routing = current_scope().routing
    if routing is None or decision.reason not in FOR_WANT_OF_REPLICA:
        return None
    cluster = routing.cluster(primary)
    if cluster.without_primary:
        return None
    cluster.do_without_primary()
    again = place_again(primary, Reason.FAILOVER, is_bound=is_bound)
    return None if again.alias == primary else again


def place_write(primary: str) -> Decision:
    """Send a statement that was addressed to a replica, and is not provably a read, to `primary`."""
    return Decision(primary, Reason.WRITE)


def has_session_state(cluster: ClusterSession) -> bool:
    """Say whether a database session on the primary has been told what no replica knows: by this unit, or on this thread's connection."""
    return cluster.changed_session or connection_to(cluster.primary).pglb_carries_state


def note_session_change(primary: str) -> None:
    """Note that this unit of work has changed its session on `primary`, and cannot leave it any more."""
    routing = current_scope().routing
    if routing is not None:
        routing.cluster(primary).note_session_change()


def place_in_own_transaction(alias: str, kind: Kind, *, is_bound: bool = False) -> Decision:
    """Return where a statement goes that is addressed to the replica `alias`, on which `use_replicas()` has let a transaction be opened.

    Raises `InternalError`, as the replica would, for what is not provably a read: it would be no part of that transaction.
    """
    if kind is not Kind.READ:
        raise InternalError(READS_ONLY.format(alias))
    scope, primary = current_scope(), get_runtime().config.primary_of[alias]
    if scope.routing is not None and has_session_state(scope.routing.cluster(primary)):
        return Decision(primary, Reason.SESSION_STATE)
    if is_bound or not is_stale_allowed():
        # Only in there a snapshot of whatever age is fine.
        return Decision(primary, Reason.TRANSACTION)
    return Decision(alias, Reason.STALE_ALLOWED)


def is_stale_allowed() -> bool:
    """Say whether the caller is inside `use_replicas()`."""
    return current_scope().forced == "replicas"


def place_on_primary(primary: str, kind: Kind) -> Decision:
    """Return why a statement that is addressed to `primary` runs there."""
    scope = current_scope()
    if kind is not Kind.READ:
        return Decision(primary, Reason.WRITE)
    if scope.routing is None:
        return Decision(primary, Reason.OUTSIDE_SESSION)
    cluster = scope.routing.cluster(primary)
    in_transaction, has_state = connection_to(primary).pglb_in_transaction(), has_session_state(cluster)
    if cluster.latest is not None and cluster.latest.alias == primary and not (in_transaction or has_state):
        return cluster.latest
    rule = standing_rule(scope, in_transaction=in_transaction, has_state=has_state) or unit_rule(scope, scope.routing, cluster)
    return Decision(primary, rule or Reason.EXPLICIT)


def _decide(
    runtime: Runtime, scope: Scope, routing: RoutingSession, primary: str, *, from_primary: bool = False, wanted: str | None = None
) -> Decision:
    cluster = routing.cluster(primary)
    state = cluster.state
    in_transaction = connection_to(primary).pglb_in_transaction()
    rule = standing_rule(scope, in_transaction=in_transaction, has_state=has_session_state(cluster))
    if rule is not None:
        return Decision(primary, rule)
    if not routing.is_request and _get_running_loop() is None:
        runtime.wait_for_first_look(primary)
    if scope.forced == "replicas":
        return any_replica(cluster, runtime.topology(primary), runtime.reads_in_flight, wanted=wanted)
    # Without a primary its rows, too, may have come from a replica under its name.
    rule = unit_rule(scope, routing, cluster, from_primary=from_primary and not cluster.without_primary)
    if rule is not None:
        return Decision(primary, rule)
    if not cluster.loaded or cluster.asker.has_changed():
        load_bound(runtime, routing, cluster)
        state = cluster.state
        if cluster.wrote:
            return Decision(primary, Reason.WROTE)  # by another thread, meanwhile
    if cluster.store_down and runtime.config.clusters[primary].on_store_error == "primary":
        return Decision(primary, Reason.STORE_ERROR)
    topology = runtime.topology(primary)
    if is_void(cluster.bound.pointer, topology) and topology.primary.is_online:
        # No replica could prove it until it expires. The primary answers now, and binds by a position of its own from then on.
        cluster.must_renew = True
    decision = replica_or_primary(cluster, topology, now(), runtime.reads_in_flight, wanted=wanted)
    if decision.reason is Reason.BEHIND and not cluster.waited and _get_running_loop() is None and wait_for_replica(runtime, cluster):
        return replica_or_primary(cluster, runtime.topology(primary), now(), runtime.reads_in_flight)
    if decision.alias == cluster.chosen and cluster.loaded and not routing.has_ended:
        cluster.lease = Lease(
            decision,
            scope=scope,
            cluster=cluster,
            state=state,
            publisher=runtime.checker,
            topology=topology,
            until=min(cluster.look_again_at, runtime.trusted_until(primary, topology)),
            in_flight=runtime.in_flight[decision.alias],
            is_unbound=cluster.bound.pointer is None and not runtime.is_monotonic(primary),
        )
    return decision


def _undecided(runtime: Runtime, primary: str) -> Decision:
    """Answer the router in an event loop, where nothing may be asked of a database or a store.

    Django asks there for `aiterator()`. It runs the query in a thread, where the cursor of the alias decides for good.
    """
    online = runtime.topology(primary).online
    return Decision(pick(online, runtime.reads_in_flight).alias, Reason.REPLICA) if online else Decision(primary, Reason.NO_REPLICA)


def protecting(primary: str, decision: Decision, kind: Kind) -> AbstractContextManager[None]:
    """Hold a place for a read that the primary answers only because no replica is usable. Raises `PrimaryProtected` if there is none."""
    if kind is not Kind.READ or decision.reason not in WITHOUT_REPLICA:
        return UNLIMITED
    runtime = get_runtime()
    places = runtime.fallbacks_of(primary)
    if places is None or runtime.topology(primary).online:
        return UNLIMITED
    if not places.acquire(blocking=False):
        raise PrimaryProtected(PROTECTED.format(primary, runtime.config.clusters[primary].primary_fallback_limit))
    return _holding(places)


@contextmanager
def _holding(places: BoundedSemaphore) -> Iterator[None]:
    try:
        yield
    finally:
        places.release()


def count(primary: str, decision: Decision, using: str, kind: Kind) -> None:
    """Count a statement that was addressed to the alias `using` and ran where `decision` says, and tell whoever listens."""
    if decision.alias == primary:
        get_runtime().note_use(primary)
    routing = current_scope().routing
    if routing is not None:
        routing.cluster(primary).count(decision)
    _tell(primary, decision, using, kind)


def count_in(cluster: ClusterSession, decision: Decision) -> None:
    """Do the same for a read that ran on the replica that was asked for, in a unit of work whose dealings are at hand."""
    cluster.count(decision)
    _tell(cluster.primary, decision, decision.alias, Kind.READ)


def _tell(primary: str, decision: Decision, using: str, kind: Kind) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s %s", decision.alias, decision.reason)
    if signals.statement_routed.receivers:
        signals.statement_routed.send(sender=None, primary=primary, decision=decision, using=using, is_write=kind is Kind.WRITE)


def is_monotonic(primary: str) -> bool:
    """Say whether what a unit of work sees in the cluster of `primary` must be remembered."""
    return get_runtime().is_monotonic(primary)


def mark_of(alias: str) -> int:
    """Return what tells the replica `alias` from its peers in a position that was seen on it."""
    return get_runtime().config.marks[alias]


def timeline_of(alias: str) -> int | None:
    """Return the timeline of the positions that the replica `alias` shows, as far as it is known."""
    topology = get_runtime().topology(get_runtime().config.primary_of[alias])
    return topology.primary.timeline or topology.by_alias[alias].timeline


def system_of(primary: str) -> int | None:
    """Return the system that the cluster of `primary` is of, as far as it is known."""
    return get_runtime().topology(primary).system_identifier


def is_known_promoted(alias: str) -> bool:
    """Say whether the checker knows that the replica `alias` was promoted; what it may be used for is in the topology then."""
    topology = get_runtime().topology(get_runtime().config.primary_of[alias])
    return topology.by_alias[alias].is_promoted


def has_been_well_since(alias: str, moment: float) -> bool:
    """Say whether the checker has found `alias` online since `moment`: what broke before that says nothing about the host now."""
    host = get_runtime().topology(get_runtime().config.primary_of[alias]).by_alias.get(alias)
    return host is not None and host.is_online and host.sampled_at is not None and host.sampled_at > moment


def report_failure(alias: str, why: str) -> None:
    """Take `alias` out of the rotation now; a probe that succeeds brings it back."""
    get_runtime().checker.report_failure(alias, why)
