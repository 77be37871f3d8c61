"""Waits, if the site wants that, for a replica to reach a reader's pointer (`WAIT_SECONDS`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError

from .core.policy import worth_waiting_for
from .engine import connection_to
from .health.clock import now

if TYPE_CHECKING:
    from .core.routing_session import ClusterSession
    from .core.topology import Host
    from .runtime import Runtime

# A replica that streams replays within a millisecond or two, so the first looks come soon; a later one must not be a load.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05


def wait_for_replica(runtime: Runtime, cluster: ClusterSession) -> bool:
    """Wait, once per unit of work and `WAIT_SECONDS` at most, until a replica has shown the pointer. Says whether one has."""
    seconds = runtime.config.clusters[cluster.primary].wait_seconds
    cluster.waited = True
    host = worth_waiting_for(cluster, runtime.topology(cluster.primary), now()) if seconds else None
    return host is not None and has_shown_pointer(runtime, cluster, host, within_seconds=seconds)


def has_shown_pointer(runtime: Runtime, cluster: ClusterSession, host: Host, *, within_seconds: float = 0) -> bool:
    """Say whether `host` shows, within so many seconds, that it has replayed the pointer. It is chosen then; with 0 it is asked once."""
    pointer, seconds = cluster.bound.pointer, within_seconds
    if pointer is None:
        return False
    deadline, pause = now() + seconds, FIRST_PAUSE
    while True:
        shown = _position(host.alias)
        if shown is not None and shown >= pointer.lsn_on(runtime.config.marks[host.alias]):
            cluster.return_to(host.alias, connection_to(host.alias).pglb_serial, shown)
            return True
        if shown is None or now() + pause > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _position(alias: str) -> int | None:
    try:
        lsn: int = connection_to(alias).pglb_replayed_lsn()
    except DatabaseError:
        # The primary answers instead; what is wrong with the host is the checker's to find out.
        return None
    return lsn
