"""The order of the rules that route a read. First match wins.

`standing_rule` and `unit_rule` need nothing but memory. Only when neither answers must the reader's pointer be known;
then `replica_or_primary` decides.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal, NamedTuple

from .decision import Decision, Reason
from .lsn import UNKNOWN_SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .lsn import Pointer
    from .routing_session import ClusterSession, RoutingSession
    from .topology import Host, Topology

    InFlight = Callable[[str], int]

# So many replicas at most turn out to be behind for one unit of work, then the primary answers. Each costs the reader a round trip and a
# server a read for nothing, and where the odds were wrong about three they are wrong about most: all looks are as old, and a bulk load
# holds up everybody. Simulated with fifty replicas, up to fifty in a row become three, and the primary gets one read in a hundred more.
MAX_ASKED_IN_VAIN = 3


class Scope(NamedTuple):
    """The routing session that is open and the overrides in force, as one immutable value."""

    routing: RoutingSession | None = None
    forced: Literal["primary", "replicas"] | None = None
    ignore_writes: bool = False
    replica_reads: bool = False
    in_step: bool = False
    """This is a step of a stream, which saves what was written in it before its chunk leaves."""
    related_to: str | None = None
    """The primary from which the objects were loaded that reads in here belong to, where the router is not told of them."""
    outer: Scope | None = None
    """The scope that this one was opened in."""


def standing_rule(scope: Scope, *, in_transaction: bool, has_state: bool = False) -> Reason | None:
    """Return why the primary must answer whatever is asked for, or None.

    `has_state`: the database session has been told something that no other one knows.
    """
    if scope.routing is None:
        return Reason.OUTSIDE_SESSION
    if scope.forced == "primary":
        return Reason.FORCED_PRIMARY
    if in_transaction:
        return Reason.TRANSACTION
    if has_state:
        return Reason.SESSION_STATE
    return None


def unit_rule(scope: Scope, routing: RoutingSession, cluster: ClusterSession, *, from_primary: bool = False) -> Reason | None:
    """Return why the primary must answer because of what this unit of work is or did, or None.

    `from_primary`: the read follows a relation of an object that was loaded from the primary.
    """
    if from_primary:
        return Reason.INSTANCE
    if cluster.wrote:
        return Reason.WROTE
    if not (routing.is_safe_in(cluster.primary) or scope.replica_reads):
        return Reason.UNSAFE_METHOD
    return None


def any_replica(cluster: ClusterSession, topology: Topology, in_flight: InFlight, *, wanted: str | None = None) -> Decision:
    """Choose a replica for a reader to whom stale is fine. The choice holds for the rest of the unit of work."""
    candidates = [host for host in topology.online if cluster.excluded.get(host.alias) is not Reason.FAILOVER]
    if not candidates:
        return Decision(cluster.primary, Reason.NO_REPLICA)
    alias = _already(candidates, wanted, cluster.chosen_stale, cluster.chosen) or pick(candidates, in_flight).alias
    cluster.chosen_stale = cluster.chosen_stale or alias
    return Decision(alias, Reason.STALE_ALLOWED)


def replica_or_primary(
    cluster: ClusterSession, topology: Topology, now: float, in_flight: InFlight, *, wanted: str | None = None
) -> Decision:
    """Choose a host for a reader whose pointer is known. The choice holds for the rest of the unit of work.

    `in_flight` tells the number of reads in flight on an alias. `wanted` is the alias that the caller named, taken if it will do.
    """
    if cluster.stays is not None:
        return Decision(cluster.primary, cluster.stays)
    if cluster.chosen is not None and wanted in (None, cluster.chosen) and is_still_fit(cluster, topology, now):
        return Decision(cluster.chosen, Reason.REPLICA)
    candidates = fit_replicas(cluster, topology, now)
    if not candidates:
        return want_of_replica(cluster, topology)
    alias = _already(candidates, wanted, cluster.chosen) or pick(candidates, in_flight).alias
    if cluster.chosen is None or wanted is None:
        cluster.choose(alias)
    return Decision(alias, Reason.REPLICA)


def is_still_fit(cluster: ClusterSession, topology: Topology, now: float) -> bool:
    """Say whether the chosen replica may go on answering, for the pointer as it is now."""
    host = topology.by_alias.get(cluster.chosen or "")
    if host is None or not host.is_online or not can_be_proved(cluster, topology, now):
        return False
    pointer = cluster.bound.pointer
    if pointer is None or cluster.reached_lsn >= pointer.lsn_on(host.mark) or not _has_primary(cluster, topology):
        return True
    return host.has_probably_reached(pointer, topology.written_at(pointer), now)


def fit_replicas(cluster: ClusterSession, topology: Topology, now: float) -> list[Host]:
    """Return the online replicas that have probably reached the reader's pointer and have not failed this unit of work.

    Once as many as may be have turned out to be behind, no other than the chosen one.
    """
    if not can_be_proved(cluster, topology, now):
        return []
    if _has_primary(cluster, topology):
        hosts, may_ask = topology.reached(cluster.bound.pointer, now), not _has_asked_enough(cluster)
    else:
        # There is nothing to lose: whoever is online is asked, and proves it or not.
        hosts, may_ask = topology.online, True
    return [host for host in hosts if host.alias not in cluster.excluded and (may_ask or host.alias == cluster.chosen)]


def _has_asked_enough(cluster: ClusterSession) -> bool:
    return tuple(cluster.excluded.values()).count(Reason.BEHIND) >= MAX_ASKED_IN_VAIN


def _has_primary(cluster: ClusterSession, topology: Topology) -> bool:
    return topology.primary.is_online and not cluster.without_primary


def worth_waiting_for(cluster: ClusterSession, topology: Topology, now: float) -> Host | None:
    """Return the online replica that will probably be the first to reach the reader's pointer; None if none can prove it."""
    if not can_be_proved(cluster, topology, now):
        return None
    candidates = [host for host in topology.online if cluster.excluded.get(host.alias) is not Reason.FAILOVER]
    return min(candidates, key=lambda host: (host.delay_seconds is None, host.delay_seconds or 0.0), default=None)


def want_of_replica(cluster: ClusterSession, topology: Topology) -> Decision:
    """Send this unit of work to the primary, where it stays, and say whether replicas were behind or missing."""
    bound = cluster.bound.pointer is not None or cluster.bound.pinned_until > 0 or bool(cluster.seen)
    alive = any(cluster.excluded.get(host.alias) is not Reason.FAILOVER for host in topology.online)
    reason = Reason.BEHIND if bound and alive else Reason.NO_REPLICA
    cluster.stay_on_primary(reason)
    return Decision(cluster.primary, reason)


def can_be_proved(cluster: ClusterSession, topology: Topology, now: float) -> bool:
    """Say whether any replica could prove anything to this reader: not while pinned, nor with a pointer that is void."""
    return cluster.bound.pinned_until <= now and not is_void(cluster.bound.pointer, topology)


def is_void(pointer: Pointer | None, topology: Topology) -> bool:
    """Say whether the primary can never show `pointer`.

    It was taken on another timeline, that is before a failover or after one not seen here yet; or on another system, that is before the
    cluster was made anew.
    """
    if pointer is None:
        return False
    if topology.primary.timeline is not None and pointer.timeline != topology.primary.timeline:
        return True
    system = topology.system_identifier
    return system is not None and pointer.system not in (UNKNOWN_SYSTEM, system % 2**64)


def pick(candidates: Sequence[Host], in_flight: InFlight) -> Host:
    """Return the less busy of two random candidates ("power of two choices"), weights respected in both steps."""
    first = _draw(candidates)
    if len(candidates) == 1:
        return first
    second = _draw([host for host in candidates if host is not first])
    return second if in_flight(second.alias) / second.weight < in_flight(first.alias) / first.weight else first


def _draw(candidates: Sequence[Host]) -> Host:
    """Return one of the candidates at random, by their weights. `random.choices()` does the same, and prepares for many draws."""
    point = random.random() * sum([host.weight for host in candidates])
    for host in candidates:
        point -= host.weight
        if point < 0:
            return host
    return candidates[-1]


def _already(candidates: Sequence[Host], *aliases: str | None) -> str | None:
    fit = {host.alias for host in candidates}
    return next((alias for alias in aliases if alias in fit), None)
