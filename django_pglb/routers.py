"""The database router: which alias a query of the ORM goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, router

from .conf import get_usable_config
from .context import current_scope
from .home import home_of, primary_followed_by
from .placement import route_by_lease, route_read
from .runtime import get_runtime, primary_of

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
        alias = self._written_to(model, hints, instance)
        primary = primary_of(alias)
        if primary is None and current_scope().routing is not None and _is_of(instance, alias):
            primary = primary_followed_by(alias)
        if primary is None:
            # Left to the other routers and to Django, which reads where `instance` came from: not if that is not its home any more.
            return None if instance is None or instance._state.db in (None, home_of(instance._state.db)) else alias
        decision = route_by_lease(primary, instance)
        if decision is None:
            is_bound = current_scope().forced == "replicas" and tells_who_asks(model)
            decision = route_read(primary, instance, is_bound=is_bound)
        return decision.alias

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """Answer always: without an answer Django would write where the instance was read."""
        instance = hints.get("instance")
        alias = self._written_to(model, hints, instance)
        return primary_of(alias) or (primary_followed_by(alias) if _is_of(instance, alias) else None) or alias

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool | None:
        primaries = {self._cluster_of(obj) for obj in (obj1, obj2) if obj._state.db is not None}
        return True if len(primaries) == 1 and None not in primaries else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        # Asked while the system checks run, which must live to say what is wrong with the settings.
        primary = get_usable_config().home_of.get(db)
        return False if primary is not None and primary != db else None

    def _written_to(self, model: type[Model], hints: dict[str, Any], instance: Model | None) -> str:
        """Return the alias that names where `model` is written: the owner's, or the home of where an instance came from."""
        for other in router.routers:
            answer = getattr(other, "db_for_write", None) if other is not self else None
            alias = answer(model, **hints) if answer is not None else None
            if alias:
                return str(alias)
        came_from = None if instance is None else instance._state.db
        return (home_of(came_from) if came_from else None) or DEFAULT_DB_ALIAS

    def _cluster_of(self, obj: Model) -> str | None:
        """Return the primary of the cluster that `obj` belongs to, in force or not."""
        home = home_of(obj._state.db or "") or self._written_to(type(obj), {}, None)
        return get_runtime().config.home_of.get(home) or primary_followed_by(home)


def _is_of(instance: Model | None, alias: str) -> bool:
    return instance is not None and instance._state.db == alias
