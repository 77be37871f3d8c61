"""Who is measured: plain Django, this package with either store, and what users would pick instead. Their settings, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PLAIN_ENGINE = "django.db.backends.postgresql"
OUR_ENGINE = "django_pglb.backends.postgresql"
REPLICAS = ("replica1", "replica2")
PINNING_ROUTER = "multidb.PinningReplicaRouter"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run the site. `routers`: those worth measuring, the site's own first. `defaults`: a module of settings that it needs."""

    title: str
    routers: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    engine: str = PLAIN_ENGINE
    settings: dict[str, Any] = field(default_factory=dict)
    defaults: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.engine == OUR_ENGINE


def _ours(title: str, store: str) -> Contender:
    return Contender(
        title=title,
        routers=("django_pglb.routers.ReplicaRouter",),
        middleware=("django_pglb.middleware.LoadBalancingMiddleware",),
        apps=("django_pglb",),
        engine=OUR_ENGINE,
        settings={"PGLB": {"default": {"REPLICAS": list(REPLICAS), "STORE": {"BACKEND": f"django_pglb.stores.{store}"}}}},
    )


CONTENDERS = {
    "plain": Contender(title="plain Django"),
    "pglb": _ours("django-pglb, Redis store", "CacheStore"),
    "pglb_cookie": _ours("django-pglb, cookie store", "CookieStore"),
    "multidb": Contender(
        title="django-multidb-router, pinning",
        routers=(PINNING_ROUTER, "multidb.ReplicaRouter"),
        middleware=("multidb.middleware.PinningRouterMiddleware",),
        settings={"REPLICA_DATABASES": list(REPLICAS)},
    ),
    "replicated": Contender(
        title="django_replicated",
        routers=("django_replicated.router.ReplicationRouter",),
        middleware=("django_replicated.middleware.ReplicationMiddleware",),
        settings={"REPLICATED_DATABASE_SLAVES": list(REPLICAS)},
        defaults="django_replicated.settings",
    ),
}
