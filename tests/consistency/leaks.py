"""What a site holds: its workers, their descriptors, and its connections at every host."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from django_pglb.testing import wait_until
from tests.served.site import GunicornSite

from .world import World

# A thread that had no connection to some host may have one now, and a duplicate of its descriptor.
DESCRIPTORS_PER_THREAD = 6
# Under another alias a promoted host serves as the primary, too.
ALIASES_PER_HOST = 2
SETTLING_SECONDS = 15.0


class Holdings(NamedTuple):
    """What a site holds at one time."""

    workers: frozenset[int]
    descriptors: Mapping[int, int]


def holdings(site: GunicornSite) -> Holdings:
    """Return what the site holds now."""
    workers = frozenset(site.worker_pids())
    return Holdings(workers, {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in workers})  # noqa: PTH208


def find_leaks(site: GunicornSite, world: World, before: Holdings) -> list[str]:
    """Return what the idle site holds and should not. What takes a moment to end is waited for."""
    found: list[str] = []

    def is_well() -> bool:
        found[:] = _leaks(site, world, before)
        return not found

    try:
        wait_until(is_well, timeout=SETTLING_SECONDS, what="the site to let go")
    except TimeoutError:
        return found
    return []


def find_remains(world: World) -> list[str]:
    """Return the hosts at which the site is still connected although it has ended."""
    try:
        wait_until(lambda: not any(world.site_connections().values()), timeout=SETTLING_SECONDS, what="the site's connections to end")
    except TimeoutError:
        return [f"the site has ended, its connections have not: {world.site_connections()}"]
    return []


def _leaks(site: GunicornSite, world: World, before: Holdings) -> Iterable[str]:
    now = holdings(site)
    if now.workers != before.workers:
        yield f"workers were {sorted(before.workers)} and are {sorted(now.workers)}"
    most = DESCRIPTORS_PER_THREAD * site.threads
    for pid, count in now.descriptors.items():
        more = count - before.descriptors.get(pid, count)
        if more > most:
            yield f"worker {pid} holds {more} descriptors more than before, not {most} at most"
    # Each thread has one connection for each alias, and each process's checker one.
    most = site.workers * (site.threads + 1) * ALIASES_PER_HOST
    for name, count in world.site_connections().items():
        if count > most:
            yield f"the site has {count} connections at {name}, not {most} at most"
