"""The thread that looks at every host, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

from .clock import now
from .gathering import Gathering
from .loop import ProbeLoop
from .probe import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.config import ClusterConfig
    from ..core.probe import Outcome
    from .gathering import Look
    from .loop import Resolve
    from .target import Target

    Report = Callable[[str, Sequence[Look]], None]

THREAD_NAME = "django-pglb-checker"

# The workers of a site start together and are stopped together with a host: without jitter they would look in step, all at once.
JITTER = 0.1

# A host that dies fails requests of all of them at the same moment.
HURRY_JITTER = 0.5

# A host that failed a request is looked at this soon, not at once: a hundred requests may fail within a few milliseconds.
# It doubles while requests fail again and again on a host that every look finds well.
HURRY_SECONDS = 0.1

# A read is given up this part of READ_TIMEOUT late at most, and no more than so many seconds.
TICKS = 10
MOST_TICK_SECONDS = 0.25

# Whatever is under way when the thread stops was severed or cancelled and needs a few turns of the loop to notice. The most that it may
# take, on a machine that is very busy: what is not over by then is left open.
FAREWELL_SECONDS = 5.0

logger = logging.getLogger("django_pglb.health")


def jittered(seconds: float, jitter: float = JITTER) -> float:
    """Return about `seconds`: another number each time, so that what began in step does not stay so."""
    return seconds * random.uniform(1 - jitter, 1 + jitter)


class HostWatch:
    """Looks at one host whenever it is told to, one look at a time. `report(alias, outcome)` is called when one has ended."""

    def __init__(self, link: Link, report: Callable[[str, Outcome], None]) -> None:
        self._link = link
        self._report = report
        self._look: asyncio.Task[None] | None = None
        self._hurry: asyncio.TimerHandle | None = None
        self._hurry_seconds = HURRY_SECONDS
        self._was_hurried = False
        self._is_leaving = False

    def look_as_planned(self) -> None:
        """Start the look that is due."""
        if not self._was_hurried:
            self._hurry_seconds = HURRY_SECONDS
        self._was_hurried = False
        self.look()

    def look(self) -> None:
        """Start a look, unless one is under way; the next one in a hurry is not needed then."""
        if self._hurry is not None:
            self._hurry.cancel()
        self._hurry = None
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_once())

    def look_soon(self) -> None:
        """Start a look before the next one is due."""
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().call_later(jittered(self._hurry_seconds, HURRY_JITTER), self.look)
            self._hurry_seconds *= 2
            self._was_hurried = True

    def leave(self) -> None:
        """Let go of the host at once."""
        self._is_leaving = True
        if self._hurry is not None:
            self._hurry.cancel()
        self._link.sever()

    async def _look_once(self) -> None:
        if self._is_leaving:
            return
        outcome = await self._link.probe()
        # A look that was cut short says nothing about the host.
        if not self._is_leaving:
            self._report(self._link.target.alias, outcome)


class Worker:
    """One daemon thread and its event loop. `report(primary, looks)` is called in that thread; it must not raise."""

    def __init__(
        self,
        clusters: Sequence[tuple[ClusterConfig, Sequence[Target]]],
        report: Report,
        *,
        on_end: Callable[[Worker], None],
        on_tick: Callable[[], object] | None = None,
        clock: Callable[[], float] = now,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._loop = ProbeLoop(resolve)
        self._stopping = asyncio.Event()
        self._on_end = on_end
        self._on_tick = on_tick
        timeouts = [config.read_timeout for config, _ in clusters if config.read_timeout is not None]
        self._tick_seconds = min(MOST_TICK_SECONDS, *(timeout / TICKS for timeout in timeouts)) if timeouts else None
        self._watches: dict[str, HostWatch] = {}
        self._clusters: list[tuple[float, list[HostWatch]]] = []
        self._gatherings: list[Gathering] = []
        for config, targets in clusters:
            gathering = Gathering(partial(report, config.primary), len(targets))
            watches = {target.alias: HostWatch(Link(target, config.check_timeout, clock), gathering.add) for target in targets}
            self._gatherings.append(gathering)
            self._watches.update(watches)
            self._clusters.append((config.check_interval, list(watches.values())))
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is about to exit
            self._loop.close()
            raise

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread and wait for it; harmless when it has ended."""
        self._call(self._stopping.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def hurry(self, alias: str) -> None:
        """Look at `alias` soon. Any thread may call this."""
        watch = self._watches.get(alias)
        if watch is not None:
            self._call(watch.look_soon)

    def _call(self, callback: Callable[[], object]) -> None:
        # The loop is closed once the thread has ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._watch_until_stopped())
        except Exception:
            logger.exception("The checker failed; the next read that wants a replica starts it again.")
        finally:
            self._loop.close()
            self._on_end(self)

    async def _watch_until_stopped(self) -> None:
        rounds = [asyncio.create_task(_watch_cluster(interval, watches)) for interval, watches in self._clusters]
        if self._on_tick is not None and self._tick_seconds is not None:
            rounds.append(asyncio.create_task(_tick(self._tick_seconds, self._on_tick)))
        await self._stopping.wait()
        for task in rounds:
            task.cancel()
        # Severed, not cancelled: a cancelled psycopg would ask hosts that do not answer to cancel its statement.
        for watch in self._watches.values():
            watch.leave()
        for gathering in self._gatherings:
            gathering.leave()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=FAREWELL_SECONDS)


async def _tick(seconds: float, on_tick: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            on_tick()
        except Exception:
            logger.exception("Reads that are late could not be given up")


async def _watch_cluster(interval: float, watches: Sequence[HostWatch]) -> None:
    """Start looks at all hosts of a cluster at the same moment, so that positions can be compared; never wait for one."""
    loop = asyncio.get_running_loop()
    while True:
        # Planned before the work, which may fail or take long.
        next_at = loop.time() + jittered(interval)
        for watch in watches:
            watch.look_as_planned()
        await asyncio.sleep(max(0.0, next_at - loop.time()))
