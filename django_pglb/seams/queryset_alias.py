"""`QuerySet.db`: where a QuerySet looks for what it is about to write is where the transaction of its write is.

A QuerySet that is bound to an alias asks no router. `obj.remarks.all()` of a generic relation is bound to the alias for reads
(https://code.djangoproject.com/ticket/36389), and so is what a package makes with `using(obj._state.db)`. Its `get_or_create()` would look
at a replica, which may not have yet what it then makes a second time; its `delete()` and `update()` would find too few rows.
Generic foreign keys and `get_next_by_…()` go by the alias that their object came from, too, which may be gone by now.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import QuerySet

from ..conf import get_usable_config
from ..engine import connection_to
from ..home import home_of_gone


def install() -> None:
    """Put ours around Django's property; safe to call again."""
    alias_of: Any = QuerySet.db.fget  # type: ignore[attr-defined]
    if not hasattr(alias_of, "_pglb_seam"):
        QuerySet.db = property(_at_home(alias_of))  # type: ignore[method-assign,assignment]


def _at_home(alias_of: Any) -> Any:
    def db(queryset: Any) -> str:
        """Return the database used if this query is executed now."""
        alias: str = alias_of(queryset)
        if not queryset._for_write:
            return alias if alias in connections.settings else home_of_gone(alias, queryset.model)
        return where_written(alias)

    db._pglb_seam = True  # type: ignore[attr-defined]
    return db


def where_written(alias: str) -> str:
    """Return the alias whose transaction it would be in which something is written by the name of `alias`."""
    if get_usable_config().home_of.get(alias, alias) == alias:
        return alias
    connection = connection_to(alias)
    # Who has switched all off may have another engine there, as for tests. It has its own transactions.
    return connection.pglb_transaction_owner().alias if hasattr(connection, "pglb_transaction_owner") else alias
