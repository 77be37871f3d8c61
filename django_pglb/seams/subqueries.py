"""`In.process_rhs`: a subquery may name a replica while the query around it runs elsewhere in the cluster.

Django refuses a subquery that is bound to another alias than the query that it is part of. `obj.remarks.all()` of a generic relation is
bound to the replica that the router named, and what contains it is written on the primary, or read there since this unit of work wrote.
The aliases of a cluster are one database, and a subquery runs where its query does. One that names the primary is left to Django: a
replica must not answer it.
"""

from __future__ import annotations

from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models.lookups import In

from ..conf import get_usable_config
from ..home import home_of_gone

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """Put ours around Django's method; safe to call again."""
    process: Any = In.process_rhs
    if not hasattr(process, "_pglb_seam"):
        In.process_rhs = _within_cluster(process)  # type: ignore[method-assign]


def _within_cluster(process: Callable[..., Any]) -> Any:
    @wraps(process)
    def process_rhs(self: In[Any], compiler: Any, connection: Any) -> Any:
        named = getattr(self.rhs, "_db", None)
        if named is not None and named != connection.alias and _is_replica_beside(named, self.rhs.model, connection.alias):
            # Queries are shared, and run at several places.
            self = copy(self)
            self.rhs = self.rhs.clone()
            self.rhs._db = connection.alias
        return process(self, compiler, connection)

    process_rhs._pglb_seam = True  # type: ignore[attr-defined]
    return process_rhs


def _is_replica_beside(named: str, model: Any, alias: str) -> bool:
    """Say whether `named` is a replica, or was one and is gone, of the cluster that `alias` is of."""
    home_of = get_usable_config().home_of
    home = home_of.get(named) if named in connections.settings else home_of_gone(named, model)
    return home not in (None, named) and home == home_of.get(alias)
