"""Wires the parts together; the only module with mutable globals.

A `Runtime` is what one process knows: the settings, the stores, the checker and how many reads are in flight.
It is built at first use, and anew when the settings change.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from . import signals
from .conf import get_config, refuse
from .context import current_scope
from .core.problem import CheckId
from .core.routing_session import Bound, Identity
from .core.topology import Host, HostState, Topology
from .engine import connection_to
from .forks import after_fork
from .health.checker import Checker
from .health.clock import now
from .health.conversations import Conversations
from .notices import Notices
from .references import broken_references, engine_problems, has_shared_store
from .stores import StoreError, open_store
from .targets import cluster_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.http import HttpRequest

    from .core.config import ClusterConfig, Config
    from .core.lsn import Pointer
    from .stores import Store

store_log = logging.getLogger("django_pglb.store")
routing_log = logging.getLogger("django_pglb.routing")


class Runtime:
    """Everything that one process shares between its units of work. Safe to use from any thread."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.in_flight: defaultdict[str, deque[None]] = defaultdict(deque)  # append, pop and len are atomic: no lock
        self._fallbacks = {
            primary: threading.BoundedSemaphore(cluster.primary_fallback_limit)
            for primary, cluster in config.clusters.items()
            if cluster.primary_fallback_limit is not None
        }
        self._stores: dict[str, Store] = {}
        self.notices = Notices()
        """What was logged of changes of state."""
        self._use_numbers = itertools.count(1)
        self._uses_outside = dict.fromkeys(config.clusters, 0)
        self._uses = {primary: next(self._use_numbers) if primary in _used_by_parent else 0 for primary in config.clusters}
        self._positions: dict[str, tuple[int, Pointer]] = {}
        self._looked_at: frozenset[str] = frozenset()
        targets = {primary: cluster_targets(cluster) for primary, cluster in config.clusters.items()}
        self.mirrored = {
            primary
            for primary, hosts in targets.items()
            if len(hosts) > 1 and all(host.is_mirror for host in hosts if host.alias != primary)
        }
        self._monotonic = frozenset(
            primary for primary, cluster in config.clusters.items() if cluster.consistency == "monotonic" and self.needs_pointers(primary)
        )
        self.checker = Checker(
            {primary: hosts for primary, hosts in targets.items() if len(hosts) > 1 and primary not in self.mirrored},
            {primary: config.clusters[primary] for primary in targets},
            on_change=_announce,
            on_offline=_let_go_of,
            on_tick=_give_up_late_reads,
        )

    def open_stores(self) -> None:
        """Make the stores. Until then nobody can tell what binds anybody. Raises what a store's import or its class raises."""
        self._stores = {primary: open_store(cluster) for primary, cluster in self.config.clusters.items()}

    @cached_property
    def identify(self) -> Callable[[HttpRequest], Iterable[Identity]]:
        """What says whom a request acts for (`IDENTITY`; all clusters of a project have the same)."""
        found: Callable[[HttpRequest], Iterable[Identity]] = import_string(next(iter(self.config.clusters.values())).identity)
        return found

    def topology(self, primary: str) -> Topology:
        """Return the newest snapshot of a cluster's hosts. Starts the checker."""
        if primary in self.mirrored:
            return self._mirror_topology(primary)
        if not self.config.clusters[primary].replicas:
            return Topology(primary=Host(alias=primary, is_primary=True), replicas=())
        self.checker.ensure_running()
        return self.checker.topology(primary)

    def is_out(self, alias: str) -> bool:
        """Say whether the checker has found the host of the replica `alias` offline. Starts nothing."""
        primary = self.config.primary_of[alias]
        if primary not in self.checker.topologies:
            return False  # all its replicas are mirrors
        return self.checker.topology(primary).by_alias[alias].state is HostState.OFFLINE

    def trusted_until(self, primary: str, topology: Topology) -> float:
        """Return when `topology` must not be gone by any more. That of mirrors is made anew each time."""
        return self.checker.trusted_until(primary, topology) if primary not in self.mirrored else 0.0

    def wait_for_first_look(self, primary: str) -> None:
        """Wait until a cluster's hosts are known: the first read of a script may be its only one, and is worth it.

        Once per process and cluster; threads that come meanwhile wait as well.
        Takes some milliseconds; one interval and a timeout at most. Never call it where somebody waits for a response.
        """
        if primary in self._looked_at or primary in self.mirrored:
            return
        cluster = self.config.clusters[primary]
        self.checker.wait_until_known(cluster.check_interval + cluster.check_timeout, primary)
        self._looked_at |= {primary}

    def needs_pointers(self, primary: str) -> bool:
        """Say whether what this cluster's users wrote must be remembered: not without replicas, nor when they mirror the primary."""
        cluster = self.config.clusters[primary]
        return bool(cluster.replicas) and cluster.consistency != "eventual" and primary not in self.mirrored

    def lacks_shared_store(self, cluster: ClusterConfig) -> bool:
        """Say whether other processes would miss what this one's users write, for want of a store that they can read.

        Not while test databases are being made: it is not known yet which replicas are going to be mirrors, which need no store.
        """
        return self.needs_pointers(cluster.primary) and not has_shared_store(cluster) and not _makes_test_databases.is_set()

    def reads_in_flight(self, alias: str) -> int:
        return len(self.in_flight[alias])

    def fallbacks_of(self, primary: str) -> threading.BoundedSemaphore | None:
        """Return what holds a place for each read that the primary answers only because no replica is usable; None: no limit."""
        return self._fallbacks.get(primary)

    def load(self, primary: str, identities: Iterable[Identity]) -> list[Bound]:
        """Return what the store knows of each of `identities`, on the process's clock. Raises `StoreError`."""
        try:
            bounds = self._store(primary).load(primary, tuple(identities))
        except StoreError as error:
            self._note_store(primary, error)
            raise
        self._note_store(primary, None)
        return [bound.shifted(now() - time.time()) for bound in bounds]

    def save(self, primary: str, identities: Iterable[Identity], bound: Bound) -> bool:
        """Save `bound` (wall time) under `identities`. Says whether the store acknowledged it; never raises."""
        try:
            self._store(primary).save(primary, tuple(identities), bound)
        except StoreError as error:
            self._note_store(primary, error)
            return False
        # Nothing to note: a store that takes saves again is not believed at once.
        return True

    def is_monotonic(self, primary: str) -> bool:
        """Say whether what this cluster's users saw must be remembered, too."""
        return primary in self._monotonic

    def sets_cookie(self, primary: str) -> bool:
        return self.config.clusters[primary].cookie or self._stores[primary].binds_by_cookie

    def keeps(self, primary: str) -> bool:
        """Say whether the store of this cluster keeps what it is given, and not the client alone."""
        return not self._stores[primary].binds_by_cookie

    def primaries_known_to_be_down(self) -> frozenset[str]:
        """Return the primaries that did not answer the checker's latest look."""
        return frozenset(primary for primary in self.config.clusters if self.is_known_to_be_down(primary))

    def is_known_to_be_down(self, primary: str) -> bool:
        """Say whether `primary` did not answer the checker's latest look."""
        return self.needs_pointers(primary) and self.topology(primary).primary.state is HostState.OFFLINE

    def note_use(self, primary: str) -> None:
        """Note that a statement or a commit has ended on `primary` in this process."""
        # A new number each time: of two threads that note it at once neither is mistaken for an earlier use.
        self._uses[primary] = number = next(self._use_numbers)
        routing = current_scope().routing
        if routing is None or not routing.is_request:
            self._uses_outside[primary] = number

    def last_use(self, primary: str) -> int:
        """Return the number of the latest use of `primary` that has ended in this process; 0 if there was none."""
        return self._uses[primary]

    def used(self) -> frozenset[str]:
        """Return the primaries that this process has used, or a parent before it was forked."""
        return frozenset(primary for primary, use in self._uses.items() if use)

    def uses_outside(self) -> dict[str, int]:
        """Return the number of each primary's latest use by this process outside any request, as in a thread that a view starts."""
        return dict(self._uses_outside)

    def position_since(self, primary: str, use: int) -> Pointer | None:
        """Return a position of `primary` (wall time) that was taken after the use of this number, and before any other."""
        number, pointer = self._positions.get(primary, (-1, None))
        return pointer if number == use else None

    def remember_position(self, primary: str, use: int, pointer: Pointer) -> None:
        """Remember the position that was taken when `use` was the latest use of `primary`."""
        self._positions[primary] = use, pointer

    def vouch(self, primary: str) -> None:
        """Declare that the store of this cluster has lost nothing: use it where you have just set up a new one. Raises `StoreError`.

        Does nothing while everything is switched off.
        """
        if self.config.enabled:
            self._store(primary).vouch(primary)

    def note_position(self, primary: str, error: Exception | None) -> None:
        """Log that no position can be taken on `primary`, so that its writers are pinned to it, and that it can again."""
        if not self.notices.is_news(("position", primary), None if error is None else "trouble"):
            return
        if error is not None:
            store_log.warning("No position can be taken on %s (%s): who writes is pinned to it.", primary, type(error).__name__)
        else:
            store_log.warning("Positions can be taken on %s again.", primary)

    def note_left_to_primary(self, alias: str, sqlstate: str) -> None:
        """Log once that the primary has answered what the replica `alias` may not, or cannot, answer."""
        if not self.notices.is_news((alias, sqlstate), "left to the primary"):
            return
        hint = "; check_replicas counts the tables that its role may not read" if sqlstate == "42501" else ""
        routing_log.warning("%s fails reads that the primary answers (SQLSTATE %s)%s.", alias, sqlstate, hint)

    def note_session(self, error: Exception | None) -> None:
        """Log that sessions cannot be loaded, so that nobody can tell who it is that reads or writes, and that they can again."""
        if not self.notices.is_news("session", None if error is None else "trouble"):
            return
        if error is not None:
            store_log.warning(
                "A session could not be loaded (%s): its user's reads go where ON_STORE_ERROR says, writes bind who is known without it.",
                type(error).__name__,
            )
        else:
            store_log.warning("Sessions can be loaded again.")

    def note_unkept(self, primary: str) -> None:
        """Log once that something was written which binds nobody: the client had its headers, and the store knows no one to keep it for."""
        if self.notices.is_news(("unkept", primary), "unkept"):
            store_log.warning(
                "A stream, or a task after its response, wrote to %s for a client that is known by its cookie alone: that binds nobody.",
                primary,
            )

    def _store(self, primary: str) -> Store:
        store = self._stores.get(primary)
        if store is None:
            raise StoreError(f"the pointer store of cluster {primary} is still being made")
        return store

    def _note_store(self, primary: str, error: StoreError | None) -> None:
        if not self.notices.is_news(("store", primary), None if error is None else type(error).__name__):
            return
        if error is None:
            store_log.warning("The pointer store of cluster %s is well again.", primary)
        else:
            store_log.error("%s; ON_STORE_ERROR of cluster %s applies.", error, primary)

    def close(self) -> None:
        """End every thread and let go of the stores."""
        self.checker.close()
        for store in self._stores.values():
            store.close()

    def _mirror_topology(self, primary: str) -> Topology:
        # Test mirrors are the primary itself. Django forbids aliases that a test case has not asked for, and so must we.
        return Topology(
            primary=Host(alias=primary, is_primary=True, state=HostState.ONLINE),
            replicas=tuple(
                Host(alias=replica.alias, is_mirror=True, state=HostState.ONLINE, why="test mirror")
                for replica in self.config.clusters[primary].replicas
                if not connection_to(replica.alias).pglb_is_forbidden
            ),
        )


conversations = Conversations()
"""This process's connections to replicas, which are severed when their host does not answer."""

_used_by_parent: frozenset[str] = frozenset()
"""The primaries that were used before this process was forked: what it goes on with may have been written there."""

_makes_test_databases = threading.Event()


@contextmanager
def making_test_databases() -> Iterator[None]:
    """Tolerate meanwhile what is no trouble for mirrors. Whoever makes a replica one resets the runtime."""
    _makes_test_databases.set()
    try:
        yield
    finally:
        _makes_test_databases.clear()


# What a thread waits for another one that makes the runtime, which may be importing something slow. It may also wait for this one: what is
# imported runs a query in a thread of its own, say.
LONGEST_WAIT = 5.0


class _Making:
    """A runtime that a thread is making."""

    def __init__(self) -> None:
        self.unfinished: Runtime | None = None
        self.thread = threading.get_ident()
        self.is_done = threading.Event()

    def wait(self) -> Runtime | None:
        """Wait until it is made, and return None; or the unfinished one, if that waits for the calling thread."""
        is_mine = self.thread == threading.get_ident()
        if is_mine and self.unfinished is None:
            raise ImproperlyConfigured("DATABASES: the module of an ENGINE, which is being imported, must run no query meanwhile.")
        return self.unfinished if is_mine or not self.is_done.wait(LONGEST_WAIT) else None


_runtime: Runtime | None = None
_making: _Making | None = None
# Protects who makes the runtime: there must be one checker only. It is made without the lock: the settings name modules, and what these do
# while they are imported, as to run a query, may come back here.
_runtime_lock = threading.Lock()


def get_runtime() -> Runtime:
    """Return this process's runtime, building it if need be. Raises `ImproperlyConfigured` if the settings are wrong."""
    runtime = _runtime
    return runtime if runtime is not None else _build()


def _build() -> Runtime:
    """Return the runtime; to what is imported for it the unfinished one, which has no store: who is known reads from the primary."""
    global _making
    while True:
        mine = _Making()
        with _runtime_lock:
            if _runtime is not None:
                return _runtime
            making = _making = _making or mine
        if (found := _make(mine) if making is mine else making.wait()) is not None:
            return found


def _make(mine: _Making) -> Runtime | None:
    """Make the runtime and publish it. Returns None if the settings have changed meanwhile."""
    global _runtime, _making
    made = None
    try:
        made = _made(mine)
    finally:
        with _runtime_lock:
            is_current = _making is mine
            if is_current:
                _runtime, _making = made, None
        mine.is_done.set()
        if mine.unfinished is not None and not (is_current and made):
            mine.unfinished.close()
    return made if is_current else None


def _made(making: _Making) -> Runtime:
    config = get_config()
    clusters = config.clusters.values()
    if any(problem for cluster in clusters for problem in engine_problems(cluster)):
        refuse(problem for cluster in clusters for problem in broken_references(cluster))
    runtime = making.unfinished = Runtime(config)
    # Servers like gunicorn run no checks. A cache that all processes share is left to those where it is not atomic: it serves, if not well.
    found = [(cluster, problem) for cluster in clusters for problem in broken_references(cluster)]
    left = [problem for cluster, problem in found if problem.id is CheckId.CACHE_NOT_ATOMIC and not runtime.lacks_shared_store(cluster)]
    refuse(problem for _, problem in found if problem not in left)
    for problem in left:
        store_log.error("%s %s", problem.message, problem.hint)
    runtime.open_stores()
    return runtime


def reset(**_: object) -> None:
    """Forget everything that this process knows: settings, stores, topology. The next use starts afresh."""
    global _runtime, _making, _used_by_parent
    with _runtime_lock:
        runtime, _runtime, _making = _runtime, None, None
        _used_by_parent = frozenset()
    if runtime is not None:
        runtime.close()


def _forget_parents() -> None:
    # A child begins with a runtime of its own: other threads of its parent may hold the locks of this one.
    global _runtime, _making, _runtime_lock, _used_by_parent
    if _runtime is not None:
        _used_by_parent = _runtime.used()
    _runtime, _making, _runtime_lock = None, None, threading.Lock()


after_fork(_forget_parents)


def primary_of(alias: str) -> str | None:
    """Return the primary of the cluster that `alias` belongs to; None if it belongs to none."""
    return get_runtime().config.primary_of.get(alias)


def _let_go_of(alias: str) -> None:
    conversations.sever(alias)


def _give_up_late_reads() -> None:
    conversations.sever_late(now())


def _announce(primary: str, topology: Topology) -> None:
    signals.topology_changed.send(sender=None, primary=primary, topology=topology)
