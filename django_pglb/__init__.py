"""PostgreSQL load balancing for Django: reads on replicas, and nobody reads before their own write."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import current_decisions, ignore_writes, replica_reads, use_primary, use_replicas
    from .errors import PrimaryProtected, StaleSave, StaleSaveWarning
    from .units import connection_for_read, export_pointer, mark_write, routing_session, stick

__version__ = "0.1.0"

__all__ = [
    "PrimaryProtected",
    "StaleSave",
    "StaleSaveWarning",
    "connection_for_read",
    "current_decisions",
    "export_pointer",
    "ignore_writes",
    "mark_write",
    "replica_reads",
    "routing_session",
    "stick",
    "use_primary",
    "use_replicas",
]

# Imported when first used: the package itself must be importable before Django is configured, and parts of it without Django.
_HOME = dict.fromkeys(("current_decisions", "ignore_writes", "replica_reads", "use_primary", "use_replicas"), "django_pglb.context")
_HOME |= dict.fromkeys(("PrimaryProtected", "StaleSave", "StaleSaveWarning"), "django_pglb.errors")
_HOME |= {name: "django_pglb.units" for name in __all__ if name not in _HOME}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
