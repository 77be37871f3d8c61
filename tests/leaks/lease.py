"""Whether a lease says what the rules say."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from django_pglb.context import current_scope
from django_pglb.core.decision import Decision
from django_pglb.core.policy import replica_or_primary, standing_rule, unit_rule
from django_pglb.engine import connection_to
from django_pglb.health.clock import now
from django_pglb.placement import held_lease
from django_pglb.runtime import get_runtime
from django_pglb.testing import wait_until

if TYPE_CHECKING:
    from django_pglb.core.routing_session import ClusterSession


def look_at_lease() -> bool:
    """Compare the lease that holds here, if there is one, with what the rules answer now. Says whether there was one."""
    lease = held_lease("default")
    if lease is None:
        return False
    # Another thread of the unit of work may have changed something just now, and be about to say so.
    wait_until(
        lambda: lease.decision == by_the_rules(copy(lease.cluster)) or held_lease("default") is not lease,
        what=f"a lease to end that says {lease.decision} where the rules say otherwise",
        timeout=20,
    )
    return True


def by_the_rules(cluster: ClusterSession) -> Decision | None:
    """Return what the rules answer, without any effect on the unit of work. None: something would have to be asked."""
    scope, topology = current_scope(), get_runtime().topology("default")
    if scope.routing is None or scope.forced is not None or not cluster.loaded or cluster.store_down:
        return None
    in_transaction = connection_to("default").pglb_in_transaction()
    rule = standing_rule(scope, in_transaction=in_transaction) or unit_rule(scope, scope.routing, cluster)
    return replica_or_primary(cluster, topology, now(), lambda alias: 0) if rule is None else Decision("default", rule)
