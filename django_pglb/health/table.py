"""A report as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .report import ClusterReport, HostReport, Report, StoreReport

HEADINGS = ("ALIAS", "ROLE", "STATE", "POSITION", "LAG BYTES", "LAG", "SERVER", "TIMELINE", "ADDRESS", "WHY")
SWITCHED_OFF = "PGLB_ENABLED is False: all is off, and every read goes to the primary."
RIGHT_ALIGNED = frozenset({"LAG BYTES", "LAG", "TIMELINE"})


def format_table(report: Report) -> str:
    """Return a table for each cluster, with aligned columns and the advice below."""
    return "\n\n".join([*([] if report.is_enabled else [SWITCHED_OFF]), *(_cluster(cluster) for cluster in report.clusters)])


def _cluster(cluster: ClusterReport) -> str:
    limit = "no limit" if cluster.max_lag_seconds is None else f"{cluster.max_lag_seconds:g} s"
    rows = [HEADINGS, *(_cells(host) for host in cluster.hosts)]
    advice = [f"  {host.alias}: {sentence}" for host in cluster.hosts for sentence in host.advice]
    store = [] if cluster.store is None else _store(cluster.store)
    return "\n".join([f"Cluster {cluster.primary} (maximum lag: {limit})", *_aligned(rows), *store, *advice])


def _store(store: StoreReport) -> list[str]:
    first = f"Store: {store.name}, {store.state}" + (f", {store.why}" if store.why else "")
    return [first, *(f"  store: {sentence}" for sentence in store.advice)]


def _cells(host: HostReport) -> tuple[str, ...]:
    lag_seconds = None if host.lag_seconds is None else f"{host.lag_seconds:.1f} s"
    cells = (host.alias, host.role, host.state, host.position, host.lag_bytes, lag_seconds, host.server_version, host.timeline)
    return tuple("-" if cell is None else str(cell) for cell in (*cells, host.address, host.why))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return ["  ".join(_padded(*cell) for cell in zip(row, HEADINGS, widths, strict=True)).rstrip() for row in rows]


def _padded(cell: str, heading: str, width: int) -> str:
    return cell.rjust(width) if heading in RIGHT_ALIGNED else cell.ljust(width)
