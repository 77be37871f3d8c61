"""How many transactions each host has run for the site, by its own count."""

from __future__ import annotations

from django_pglb.testing import Cluster

from ..servers import DATABASE

COUNT = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"


def transactions(cluster: Cluster) -> list[int]:
    """Return the count of each host, the primary's first.

    A backend at work tells of its transactions once a second, so the count of a host under load is up to a second old.
    Two counts under the same load are late by the same; what is left when a load has stopped is told ten seconds later.
    """
    return [int(host.ask(COUNT, (DATABASE,))) for host in cluster.hosts]


def share_on_primary(before: list[int], after: list[int]) -> float:
    """Return the primary's share of the transactions between two counts."""
    grown = [late - early for early, late in zip(before, after, strict=True)]
    return grown[0] / max(1, sum(grown))
