"""The store that a cluster's settings name."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from django.utils.module_loading import import_string

from ..health.report import STORE_OFFLINE, StoreReport

if TYPE_CHECKING:
    from ..core.config import ClusterConfig
    from .base import Store


def open_store(cluster: ClusterConfig) -> Store:
    """Return a new store for `cluster`, which opens no connection before its first use. Raises what its import or its class raises."""
    store_class: type[Store] = import_string(cluster.store.backend)
    store = store_class(pointer_seconds=cluster.pointer_seconds, **cluster.store.options)
    store.sticky_seconds = cluster.sticky_seconds
    return store


def look_at_store(cluster: ClusterConfig) -> StoreReport | None:
    """Return how the store of `cluster` is, whatever its settings are; None where there is nothing to look at."""
    try:
        store = open_store(cluster)
    except Exception as error:  # noqa: BLE001 - the settings may name anything
        return StoreReport(name=cluster.store.backend, state=STORE_OFFLINE, why=f"cannot be made: {type(error).__name__}")
    with closing(store):
        return store.look(cluster.primary)
