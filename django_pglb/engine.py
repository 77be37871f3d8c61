"""What the rest of the package asks of a connection of our engine, without importing the engine."""

from __future__ import annotations

import threading
from asyncio import _get_running_loop  # the documented one raises where there is none, which costs a microsecond
from typing import TYPE_CHECKING, Any, Protocol, cast

from django.db import connections

if TYPE_CHECKING:
    from .core.lsn import Pointer
    from .core.routing_session import RoutingSession


MIRROR_OF = "PGLB_MIRROR_OF"
"""The key in `TEST` that names the primary of which a test runner has made an alias a mirror."""


class Connection(Protocol):
    """A thread's connection to an alias of a cluster; `backends.mixin.LoadBalancedMixin` says what each member means."""

    alias: str
    settings_dict: dict[str, Any]
    in_atomic_block: bool
    pglb_serial: int
    pglb_carries_state: bool
    pglb_writers: frozenset[RoutingSession]

    @property
    def pglb_opened_at(self) -> float: ...
    @property
    def pglb_mirror_of(self) -> str | None: ...
    @property
    def pglb_is_lost(self) -> bool: ...
    @property
    def pglb_has_broken(self) -> bool: ...
    @property
    def pglb_is_forbidden(self) -> bool: ...
    @property
    def pglb_transaction_is_open(self) -> bool: ...
    @property
    def pglb_is_busy(self) -> bool: ...
    @property
    def pglb_has_own_transaction(self) -> bool: ...
    def pglb_transaction_owner(self) -> Connection: ...
    def pglb_in_transaction(self) -> bool: ...
    def pglb_is_views_block_unused(self) -> bool: ...
    def pglb_capture_pointer(self, within_seconds: float) -> Pointer | None: ...
    def pglb_replayed_lsn(self) -> int: ...
    def pglb_open_cursor(self, name: str | None = None) -> Any: ...
    def close(self) -> None: ...


# Where Django keeps a thread's connections. `connections[alias]` asks asyncio for its loop first, which raises where there is none: that
# costs more than all the rest of a routing decision.
_storage: object = getattr(connections._connections, "_storage", None)  # type: ignore[attr-defined]  # missing in the stubs
_of_thread = _storage if isinstance(_storage, threading.local) else None


def connection_to(alias: str) -> Connection:
    """Return the calling thread's connection to `alias`; it need not be open."""
    if _of_thread is not None and _get_running_loop() is None:
        connection = getattr(_of_thread, alias, None)
        if connection is not None:
            return cast("Connection", connection)
    return cast("Connection", connections[alias])
