"""A routing decision that is used again, so that a page's reads are not put through all the rules one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping

    from .decision import Decision
    from .policy import Scope
    from .routing_session import ClusterSession
    from .topology import Topology


class Publisher(Protocol):
    """Who publishes topologies: each is a new object."""

    @property
    def topologies(self) -> Mapping[str, Topology]:
        """The newest, by the clusters' primaries."""
        ...


class Lease:
    """What the rules have answered for a read that nobody forces anywhere, and everything that the answer rests on.

    It holds while all of that is the very same, so nobody has to end it. Threads of one unit of work may share it.
    """

    __slots__ = ("cluster", "decision", "in_flight", "is_unbound", "publisher", "scope", "settled", "state", "topology", "until")

    def __init__(
        self,
        decision: Decision,
        *,
        scope: Scope,
        cluster: ClusterSession,
        state: object,
        publisher: Publisher,
        topology: Topology,
        until: float,
        in_flight: deque[None],
        is_unbound: bool,
    ) -> None:
        self.decision = decision
        self.scope = scope
        self.cluster = cluster
        self.state = state
        """The `state` of the cluster session from before the rules were applied."""
        self.publisher = publisher
        self.topology = topology
        self.until = until
        """When the unit of work must ask again what binds it, or the topology is too old to be trusted."""
        self.in_flight = in_flight
        self.is_unbound = is_unbound
        """Whether there is nothing to prove on any connection, nor to remember."""
        self.settled: set[int] = set()
        """Serial numbers of the connections that have proved all that must be proved, where reads must not be remembered either."""
