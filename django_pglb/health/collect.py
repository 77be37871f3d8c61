"""One look at every host of every cluster, all at once, within a deadline."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from ..core.history import ClusterHistory, horizon_seconds, record_primary, record_replica
from ..core.probe import NotNow, Outcome, Probe
from .clock import now
from .loop import ProbeLoop
from .probe import Link
from .report import ClusterReport, Report, report_cluster
from .rights import READABLE, UNREADABLE, advise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..core.config import ClusterConfig
    from .loop import Resolve
    from .target import Target

# A healthy replica under load is some milliseconds behind, and an idle one may just be receiving a record that commits nothing:
# so long it may take to reach the primary's position before its lag is told by commit times.
SETTLE_SECONDS = 0.3
SETTLE_PAUSE_SECONDS = 0.02


def collect(
    clusters: Iterable[tuple[ClusterConfig, Sequence[Target]]],
    *,
    clock: Callable[[], float] = now,
    resolve: Resolve = socket.getaddrinfo,
) -> Report:
    """Look at every host once and report. Takes hardly longer than the longest `check_timeout`, whatever hangs.

    The primary comes first in each cluster's targets. Not to be called from a running event loop.
    """
    with asyncio.Runner(loop_factory=lambda: ProbeLoop(resolve)) as runner:
        return runner.run(_collect(clusters, clock))


async def _collect(clusters: Iterable[tuple[ClusterConfig, Sequence[Target]]], clock: Callable[[], float]) -> Report:
    looks = [ClusterLook(config, targets, clock).report() for config, targets in clusters]
    return Report(clusters=tuple(await asyncio.gather(*looks)))


class ClusterLook:
    """One look at the hosts of one cluster."""

    def __init__(self, config: ClusterConfig, targets: Sequence[Target], clock: Callable[[], float]) -> None:
        self._config = config
        self._targets = targets
        self._links = {target.alias: Link(target, config.check_timeout, clock) for target in targets if not target.is_mirror}
        self._ends_at = asyncio.get_running_loop().time() + config.check_timeout
        self._primary: asyncio.Task[Outcome] | None = None

    async def report(self) -> ClusterReport:
        """Look, and let go of every host."""
        try:
            history = await self._look()
            unreadable = await self._unreadable()
        finally:
            for link in self._links.values():
                link.sever()
        return report_cluster(self._config, self._targets, history, unreadable)

    async def _unreadable(self) -> dict[str, list[str]]:
        """Return what to advise for each replica whose role may read less than the primary's."""
        readable = await self._links[self._config.primary].ask(READABLE, self._remaining())
        replicas = [alias for alias in self._links if alias != self._config.primary]
        answers = await asyncio.gather(*(self._links[alias].ask(UNREADABLE, self._remaining()) for alias in replicas))
        return {alias: advise(readable, answer) for alias, answer in zip(replicas, answers, strict=True)}

    async def _look(self) -> ClusterHistory:
        primary = self._links[self._config.primary]
        self._primary = asyncio.create_task(primary.probe(self._remaining()))
        replicas = [alias for alias in self._links if alias != self._config.primary]
        outcomes = await asyncio.gather(*(self._look_at_replica(alias, self._primary) for alias in replicas))
        horizon = horizon_seconds(self._config.max_lag_seconds)
        first = await self._primary
        history = record_primary(ClusterHistory(database=self._links[self._config.primary].target.database), first, horizon)
        for alias, outcome in ((alias, outcome) for alias, told in zip(replicas, outcomes, strict=True) for outcome in told):
            history = record_replica(history, alias, outcome)
        if any(_needs_second_look(first, told[-1]) for told in outcomes) and self._remaining() > 0:
            again = await primary.probe(self._remaining())
            history = record_primary(history, again, horizon) if isinstance(again, Probe) else history
        return history

    async def _look_at_replica(self, alias: str, primary: asyncio.Task[Outcome]) -> Sequence[Outcome]:
        """Return what it told, the latest last."""
        outcome = await self._links[alias].probe(self._remaining())
        if _may_have_half_a_record(outcome):
            await asyncio.sleep(min(SETTLE_SECONDS, self._remaining()))
            again = await self._links[alias].probe(self._remaining())
            return (outcome, again) if isinstance(again, Probe) else (outcome,)
        wanted = await asyncio.shield(primary)
        settled_at = asyncio.get_running_loop().time() + min(SETTLE_SECONDS, self._remaining())
        while (isinstance(outcome, NotNow) or _is_behind(outcome, wanted)) and asyncio.get_running_loop().time() < settled_at:
            await asyncio.sleep(SETTLE_PAUSE_SECONDS)
            again = await self._links[alias].probe(self._remaining())
            outcome = again if isinstance(again, Probe) else outcome
        return (outcome,)

    def _remaining(self) -> float:
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())


def _is_behind(replica: Outcome, primary: Outcome) -> bool:
    if not (isinstance(replica, Probe) and isinstance(primary, Probe)) or primary.in_recovery or not replica.in_recovery:
        return False
    return replica.lsn is not None and primary.lsn is not None and replica.lsn < primary.lsn


def _may_have_half_a_record(replica: Outcome) -> bool:
    """Say whether only a second answer can show that the replica has replayed what can be replayed, and its primary is gone."""
    return isinstance(replica, Probe) and not replica.has_receiver and (replica.lsn or 0) < (replica.received_lsn or 0)


def _needs_second_look(primary: Outcome, replica: Outcome) -> bool:
    """Say whether only an answer of the primary that comes after the replica's can show that the replica has diverged."""
    if not (isinstance(primary, Probe) and isinstance(replica, Probe)):
        return False
    return not replica.in_recovery or (replica.lsn or 0) > (primary.lsn or 0)
