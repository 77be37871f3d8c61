"""Where a QuerySet looks for what it is about to write: where the transaction of its write is.

A QuerySet that is bound to an alias asks no router. `obj.remarks.all()` of a generic relation is bound to the alias for reads
(https://code.djangoproject.com/ticket/36389), and so is what a package makes with `using(obj._state.db)`. Its `get_or_create()` would look
at a replica, which may not have yet what it then makes a second time; its `delete()` and `update()` would find too few rows.
Generic foreign keys and `get_next_by_…()` go by the alias that their object came from, too, which may be gone by now.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, router
from django.db.models import QuerySet

from .conf import get_config
from .engine import connection_to
from .home import home_of_gone


def connect() -> None:
    """Put our `QuerySet.db` in the place of Django's; safe to call again."""
    QuerySet.db = property(alias_of)  # type: ignore[method-assign,assignment]


def alias_of(queryset: Any) -> str:
    """Return the alias of the database that `queryset` uses if it is executed now, as Django's `QuerySet.db` does."""
    named = queryset._db
    if not queryset._for_write:
        if not named:
            return router.db_for_read(queryset.model, **queryset._hints)
        return named if named in connections.settings else home_of_gone(named, queryset.model)
    alias: str = named or router.db_for_write(queryset.model, **queryset._hints)
    if get_config().home_of.get(alias, alias) == alias:
        return alias
    return connection_to(alias).pglb_transaction_owner().alias
