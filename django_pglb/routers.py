"""The database router: which alias a query of the ORM goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, router

from .conf import get_usable_config
from .context import current_scope
from .placement import route_by_lease, route_read
from .runtime import primary_of

if TYPE_CHECKING:
    from django.db.models import Model


def tells_who_asks(model: type[Model]) -> bool:
    """Say whether rows of `model` tell whom a request acts for: sessions, users and the tokens of Django REST framework.

    `use_replicas()` does not make a stale one fine: a session that is not there yet, or a user with the password from before, would sign
    the visitor out for good.
    """
    # By what it has, as importing Django's own session model would need its app. Some models are none: Django's database cache has one.
    label = getattr(model._meta, "label_lower", "")
    return hasattr(model, "get_session_store_class") or label in (settings.AUTH_USER_MODEL.lower(), "authtoken.token")


class ReplicaRouter:
    """Sends reads to a replica that has reached the reader's pointer, and everything else to the primary.

    List it first in `DATABASE_ROUTERS`. Which cluster owns a model is asked of the other routers' `db_for_write`;
    models that belong to no cluster are left to them.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        instance = hints.get("instance")
        primary = primary_of(self._written_to(model, hints, instance))
        if primary is None:
            return None
        decision = route_by_lease(primary, instance)
        if decision is None:
            is_bound = current_scope().forced == "replicas" and tells_who_asks(model)
            decision = route_read(primary, instance, is_bound=is_bound)
        return decision.alias

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """Answer always: without an answer Django would write where the instance was read."""
        alias = self._written_to(model, hints, hints.get("instance"))
        return primary_of(alias) or alias

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool | None:
        primaries = {primary_of(obj._state.db) for obj in (obj1, obj2) if obj._state.db is not None}
        return True if len(primaries) == 1 and None not in primaries else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        # Asked while the system checks run, which must live to say what is wrong with the settings.
        primary = get_usable_config().primary_of.get(db)
        return False if primary is not None and primary != db else None

    def _written_to(self, model: type[Model], hints: dict[str, Any], instance: Model | None) -> str:
        """Return the alias that names where `model` is written: the owner's, or one of its replicas, where an instance came from."""
        for other in router.routers:
            answer = getattr(other, "db_for_write", None) if other is not self else None
            alias = answer(model, **hints) if answer is not None else None
            if alias:
                return str(alias)
        return (instance._state.db if instance is not None else None) or DEFAULT_DB_ALIAS
