"""Keeps a topology of each cluster, without ever being in a reader's way."""

from __future__ import annotations

import atexit
import logging
import socket
import threading
import weakref
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ..core.assessment import assess
from ..core.history import ClusterHistory, horizon_seconds, looked_at, record_primary, record_replica
from ..core.probe import Failure, Probe
from ..core.topology import HostState, Topology
from ..forks import after_fork, begin_anew_if_forked
from .clock import now
from .gathering import Look
from .teller import Change, Teller, is_worth_telling
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..core.config import ClusterConfig
    from ..core.probe import Outcome
    from .loop import Resolve
    from .target import Target
    from .teller import OnChange

    OnOffline = Callable[[str], None]

logger = logging.getLogger("django_pglb.health")


# Looks are this many intervals and timeouts late before nobody believes what the last ones have told, and at least that many seconds:
# a busy machine makes a process miss its looks for a second or two.
TRUSTED_LOOKS = 3
MIN_TRUSTED_SECONDS = 3.0


class Checker:
    """What this process knows of its clusters' hosts. Safe to use from any thread.

    `targets` and `configs` are keyed by the primary's alias; clusters without targets are ignored. Nothing happens before
    `ensure_running()`. `on_change(primary, topology)` is called in a thread of its own when a host's state has changed.
    `on_offline(alias)` is called in the checker's thread each time that a look at a replica got no answer at all, not only the first time:
    a read may have been sent to it just before. Let go of whoever waits for that replica, and never wait for anything.
    `on_tick()` is called there several times within the shortest `READ_TIMEOUT`, if a cluster has one.
    In a forked child everything is unknown again, and its first use starts a thread of its own.
    """

    def __init__(
        self,
        targets: Mapping[str, Sequence[Target]],
        configs: Mapping[str, ClusterConfig],
        *,
        on_change: OnChange | None = None,
        on_offline: OnOffline | None = None,
        on_tick: Callable[[], object] | None = None,
        clock: Callable[[], float] = now,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._targets = {primary: tuple(hosts) for primary, hosts in targets.items()}
        self._configs = {primary: configs[primary] for primary in self._targets}
        self._primary_of = {target.alias: primary for primary, hosts in self._targets.items() for target in hosts}
        self._addresses = {target.alias: target.address for hosts in self._targets.values() for target in hosts}
        self._on_change = on_change
        self._on_offline = on_offline
        self._on_tick = on_tick
        self._clock = clock
        self._resolve = resolve
        self._blank = {primary: _blank_topology(primary, hosts) for primary, hosts in self._targets.items()}
        self._trusted_seconds = {primary: _trusted_seconds(config) for primary, config in self._configs.items()}
        self._unseen = {primary: _unseen_topology(blank, self._trusted_seconds[primary]) for primary, blank in self._blank.items()}
        self._is_closed = False
        self._start_over()
        _checkers.add(self)

    def _start_over(self) -> None:
        """Know nothing. A forked child has none of its parent's threads, and must leave its parent's connections alone."""
        self._worker: Worker | None = None
        self._has_complained = False
        self.topologies = dict(self._blank)
        """The newest snapshots, whatever their age. Whoever has one can tell by its identity whether it is still the newest."""
        self._histories = self._unseen_histories()
        self._teller = Teller(self._configs, self._addresses, self._on_change)
        self._outdated: set[str] = set()
        # Protects the step from one history and topology to the next, and the start of a worker; readers of topologies do not take it.
        self._step = threading.Condition(threading.Lock())

    def _unseen_histories(self) -> dict[str, ClusterHistory]:
        return {primary: ClusterHistory(database=_database(primary, targets)) for primary, targets in self._targets.items()}

    # --- Reading ---

    def topology(self, primary: str) -> Topology:
        """Return the newest snapshot of the cluster of `primary`; what nobody has looked at for too long is unknown."""
        topology = self.topologies[primary]
        # Every read comes by here: `is_stale()` written out.
        as_of = topology.as_of
        if as_of is not None and self._clock() - as_of > self._trusted_seconds[primary]:
            # Nobody looks if the thread is a parent's, which Python was not told of.
            if begin_anew_if_forked():
                return self.topologies[primary]
            self._note_outdated(primary)
            return self._unseen[primary]
        return topology

    def trusted_until(self, primary: str, topology: Topology) -> float:
        """Return when this topology is too old to be trusted."""
        return inf if topology.as_of is None else topology.as_of + self._trusted_seconds[primary]

    def _is_stale(self, primary: str, topology: Topology) -> bool:
        return topology.is_stale(self._clock(), self._trusted_seconds[primary])

    def _note_outdated(self, primary: str) -> None:
        if primary in self._outdated:
            return
        self._outdated.add(primary)
        trusted = self._trusted_seconds[primary]
        logger.error(
            "No host of cluster %s was looked at for more than %g s: all its reads go to the primary until one is.", primary, trusted
        )

    def wait_until_known(self, timeout: float, primary: str | None = None) -> bool:
        """Start if need be, and wait until the cluster of `primary` (None: each) has a replica online, or none that is not known yet.

        Says whether that was so within `timeout` seconds.
        """
        self.ensure_running()
        with self._step:
            return self._step.wait_for(partial(self._are_known, primary), timeout)

    def _are_known(self, primary: str | None) -> bool:
        return all(self._is_known(each) for each in self.topologies if primary in (None, each))

    def _is_known(self, primary: str) -> bool:
        topology = self.topologies[primary]
        if self._is_stale(primary, topology):
            return False
        return bool(topology.online) or all(host.state is not HostState.UNKNOWN for host in topology.replicas)

    # --- Running ---

    def ensure_running(self) -> None:
        """Start the thread unless it runs. Costs next to nothing when it does."""
        if self._worker is None:
            self._start()

    def stop(self) -> None:
        """End the thread. `ensure_running()` starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._teller.stop()

    def close(self) -> None:
        """End the thread for good: whoever still has this checker starts no other."""
        with self._step:
            self._is_closed = True
        self.stop()
        self.topologies = dict(self._blank)

    def _start(self) -> None:
        clusters = [(self._configs[primary], targets) for primary, targets in self._probed()]
        if not clusters:
            return
        with self._step:
            if self._worker is not None or self._is_closed:
                return
            trouble = None
            try:
                worker = Worker(clusters, self._report, on_end=self._ended, on_tick=self._on_tick, clock=self._clock, resolve=self._resolve)
                worker.start()
            except RuntimeError:
                return  # the interpreter is about to exit: everything stays unknown
            except OSError as error:
                # Out of descriptors, most likely. No request may fail for that; the next one tries again.
                trouble = error
            else:
                self._worker = worker
        # Not under the lock: whoever handles the log may ask for a topology.
        self._note_start(trouble)

    def _note_start(self, error: OSError | None) -> None:
        if error is not None and not self._has_complained:
            logger.error("The checker cannot be started (%s): all reads go to the primary until it can.", error)
        self._has_complained = error is not None

    def _probed(self) -> list[tuple[str, list[Target]]]:
        """Return whom to probe: no mirrors, and no primary alone, since nothing depends on it."""
        probed = {primary: [target for target in targets if not target.is_mirror] for primary, targets in self._targets.items()}
        return [(primary, targets) for primary, targets in probed.items() if any(not target.is_primary for target in targets)]

    def _ended(self, worker: Worker) -> None:
        """Called by the thread of `worker` when it ends."""
        with self._step:
            if self._worker is worker:
                # It failed. What nobody keeps up to date is not known.
                self._worker = None
                self.topologies = dict(self._blank)
                self._histories = self._unseen_histories()

    # --- Learning ---

    def report_failure(self, alias: str, why: str) -> None:
        """Take `alias` out of the rotation now. It returns when a look that starts after this finds it well.

        `why` is logged: it must hold nothing secret.
        """
        primary = self._primary_of.get(alias)
        if primary is None:
            return
        self._record(primary, [Look(alias, Failure(self._clock(), why))])
        self.ensure_running()
        worker = self._worker
        if worker is not None:
            worker.hurry(alias)

    def _report(self, primary: str, looks: Sequence[Look]) -> None:
        """Called in the checker's thread when looks have ended."""
        trusted = self._trusted_seconds[primary]
        believed = [look for look in looks if not _was_slept_over(look.outcome, trusted)]
        if not believed:
            return
        self._record(primary, believed, looked_for=trusted)
        self._teller.ensure_running()
        for alias, outcome in believed:
            # Not for a primary: a write whose answer is late would be one whose outcome is unknown.
            if isinstance(outcome, Failure) and outcome.is_unreachable and alias != primary:
                self._let_go_of(alias)

    def _let_go_of(self, alias: str) -> None:
        if self._on_offline is None:
            return
        try:
            self._on_offline(alias)
        except Exception:
            logger.exception("Connections to %s could not be severed", alias)

    def _record(self, primary: str, looks: Iterable[Look], *, looked_for: float | None = None) -> None:
        max_lag_seconds = self._configs[primary].max_lag_seconds
        with self._step:
            history = self._histories[primary]
            for alias, outcome in looks:
                if looked_for is not None:
                    history = looked_at(history, outcome.at, looked_for)
                    self._outdated.discard(primary)
                if alias == primary:
                    history = record_primary(history, outcome, horizon_seconds(max_lag_seconds))
                else:
                    history = record_replica(history, alias, outcome)
            before = self.topologies[primary]
            after = assess(self._blank[primary], history, max_lag_seconds, before)
            self._histories[primary], self.topologies[primary] = history, after
            for change in _changes(primary, before, after):
                self._teller.tell(change)
            self._step.notify_all()


def _was_slept_over(outcome: Outcome, trusted_seconds: float) -> bool:
    """Say whether the process slept between question and answer: nobody knows when it was true."""
    return isinstance(outcome, Probe) and outcome.at - outcome.started_at > trusted_seconds


def _blank_topology(primary: str, targets: Sequence[Target]) -> Topology:
    hosts = {target.alias: target.unknown() for target in targets}
    leader = hosts.pop(primary)
    blank = Topology(primary=leader, replicas=tuple(hosts.values()))
    return assess(blank, ClusterHistory(), None)


def _database(primary: str, targets: Sequence[Target]) -> str | None:
    return next(target.database for target in targets if target.alias == primary)


def _unseen_topology(blank: Topology, seconds: float) -> Topology:
    """Return what is known when nobody has looked for `seconds`."""
    hosts = [
        host if host.is_mirror else replace(host, why=f"was not looked at for more than {seconds:g} s") for host in blank.by_alias.values()
    ]
    return replace(blank, primary=hosts[0], replicas=tuple(hosts[1:]))


def _trusted_seconds(config: ClusterConfig) -> float:
    return max(MIN_TRUSTED_SECONDS, TRUSTED_LOOKS * (config.check_interval + config.check_timeout))


def _changes(primary: str, before: Topology, after: Topology) -> list[Change]:
    return [
        Change(primary, host, after.by_alias[alias], after)
        for alias, host in before.by_alias.items()
        if is_worth_telling(host, after.by_alias[alias])
    ]


_checkers: weakref.WeakSet[Checker] = weakref.WeakSet()

# What a child has inherited is kept and never touched: closing a connection there would take leave in the parent's name.
_left_behind: list[Worker] = []


def _start_over_in_child() -> None:
    for checker in list(_checkers):
        if checker._worker is not None:
            _left_behind.append(checker._worker)
        checker._start_over()


def _stop_all() -> None:
    for checker in list(_checkers):
        checker.stop()


after_fork(_start_over_in_child)
# Daemon threads are frozen wherever they are when the interpreter exits; ours leaves before that.
atexit.register(_stop_all)
