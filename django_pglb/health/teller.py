"""Logs what has changed, and tells whoever listens, in a thread of its own: a log or a listener that hangs holds up no look."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

from ..core.topology import Host, HostState, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..core.config import ClusterConfig

    OnChange = Callable[[str, Topology], None]

THREAD_NAME = "django-pglb-teller"

logger = logging.getLogger("django_pglb.health")


class Change(NamedTuple):
    """A host that is not as it was before, in what is told of hosts."""

    primary: str
    before: Host
    after: Host
    topology: Topology


def is_worth_telling(before: Host, after: Host) -> bool:
    """Say whether anything that is told of a host has changed."""
    return (before.state, before.waits_for_standbys) != (after.state, after.waits_for_standbys)


class Teller:
    """Tells every change, in order. `addresses` are keyed by alias, `configs` by primary."""

    def __init__(self, configs: Mapping[str, ClusterConfig], addresses: Mapping[str, str], on_change: OnChange | None) -> None:
        self._configs = configs
        self._addresses = addresses
        self._on_change = on_change
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned: set[str] = set()
        self._has_replicas: dict[str, bool] = {}

    def tell(self, change: Change) -> None:
        """Have `change` told once the thread runs. Any thread may call this, also while it holds a lock."""
        self._changes.put(change)

    def ensure_running(self) -> None:
        """Start the daemon thread if there is anything to tell. For one thread only."""
        if self._thread is None and not self._changes.empty():
            thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no thread is to be had now, or the interpreter is about to exit
            self._thread = thread

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread when all has been told, and wait for that."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._changes.put(None)
        if threading.current_thread() is not thread:
            thread.join(timeout)

    def _serve(self) -> None:
        while (change := self._changes.get()) is not None:
            if change.before.state is not change.after.state:
                self._log(change)
                self._log_cluster(change.primary, change.topology)
                self._call(change)
            if change.before.waits_for_standbys is not change.after.waits_for_standbys:
                self._log_order(change)

    def _call(self, change: Change) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(change.primary, change.topology)
        except Exception:
            logger.exception("A listener to changes of the topology failed")

    def _log(self, change: Change) -> None:
        after = change.after
        logger.log(
            logging.WARNING if self._deserves_warning(change.before, after) else logging.INFO,
            "%s (%s) is %s, was %s: %s%s",
            after.alias,
            self._addresses[after.alias],
            after.state,
            change.before.state,
            after.why,
            "" if after.is_primary else self._lag(change),
        )

    def _lag(self, change: Change) -> str:
        lag_seconds = change.after.lag_seconds
        known = "unknown" if lag_seconds is None else f"{lag_seconds:.1f} s"
        return f"; lag {known}, MAX_LAG_SECONDS {self._configs[change.primary].max_lag_seconds}"

    def _deserves_warning(self, before: Host, after: Host) -> bool:
        """Whoever read that a host left must read that it is back. That a process meets one for the first time is routine."""
        is_routine = {before.state, after.state} <= {HostState.ONLINE, HostState.UNKNOWN} and not before.is_online
        deserves = not is_routine or after.alias in self._warned
        if after.is_online:
            self._warned.discard(after.alias)
        elif deserves:
            self._warned.add(after.alias)
        return deserves

    def _log_order(self, change: Change) -> None:
        """Say once what synchronous standbys mean to readers whose time must not go backwards, and once that there is none any more."""
        if self._configs[change.primary].consistency != "monotonic":
            return
        if change.after.waits_for_standbys:
            logger.warning(
                'CONSISTENCY of cluster %s is "monotonic", and commits wait for synchronous standbys (synchronous_standby_names):'
                " replicas show them first, so a page that the primary answers may go back behind one of a replica.",
                change.primary,
            )
        else:
            logger.warning("Commits of cluster %s wait for no synchronous standby any more.", change.primary)

    def _log_cluster(self, primary: str, topology: Topology) -> None:
        """Say once that no replica is left, and once that there is one again."""
        had = self._has_replicas.get(primary)
        if topology.online:
            if had is False:
                logger.warning(
                    "Cluster %s has replicas to read from again: %s.", primary, ", ".join(host.alias for host in topology.online)
                )
            self._has_replicas[primary] = True
        elif had or (had is None and all(host.state is not HostState.UNKNOWN for host in topology.replicas)):
            logger.warning(
                "Cluster %s has no replica to read from: all its reads go to the primary, which is %s.", primary, topology.primary.state
            )
            self._has_replicas[primary] = False
