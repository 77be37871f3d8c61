"""django-multidb-router: who sent an unsafe request reads from the primary while a cookie lives, 15 s."""

from __future__ import annotations

from typing import Any


def configure(settings: dict[str, Any]) -> None:
    """Read from the replicas in turn, a statement each, but for the cookie; `MULTIDB_PINNING_SECONDS` is at its default."""
    # Its documentation: before all other middleware that writes to a database.
    settings["MIDDLEWARE"].insert(0, "multidb.middleware.PinningRouterMiddleware")
    settings["DATABASE_ROUTERS"] = ["multidb.PinningReplicaRouter"]
    settings["REPLICA_DATABASES"] = [alias for alias in settings["DATABASES"] if alias != "default"]
