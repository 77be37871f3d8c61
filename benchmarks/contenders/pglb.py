"""This package, as its documentation says."""

from __future__ import annotations

from typing import Any


def configure(settings: dict[str, Any], *, consistency: str) -> None:
    """Read from the replicas with this `CONSISTENCY`, everything else at its default."""
    for database in settings["DATABASES"].values():
        database["ENGINE"] = "django_pglb.backends.postgresql"
    settings["INSTALLED_APPS"].append("django_pglb")
    settings["MIDDLEWARE"].insert(0, "django_pglb.middleware.LoadBalancingMiddleware")
    settings["DATABASE_ROUTERS"] = ["django_pglb.routers.ReplicaRouter"]
    replicas = [alias for alias in settings["DATABASES"] if alias != "default"]
    settings["PGLB"] = {"default": {"REPLICAS": replicas, "CONSISTENCY": consistency}}
