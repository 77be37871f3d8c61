"""Requests per second with replicas beside plain Django: in turn, both sites up all the time, several rounds of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from ..servers import Servers, Site
from ..wire import Device
from .cpu import cpu_seconds
from .figures import Window
from .load import Load, devices_of
from .plan import Plan
from .stage import MONOTONIC, PLAIN, READ_YOUR_WRITES, TIMED_PIN, refresh

ANONYMOUS_PAGE = "/stranger/"
PAGES = {"/": "six queries and a template", "/small/": "three queries, JSON", ANONYMOUS_PAGE: "anonymous, one query, JSON"}
COOKIE_STORE = f"{READ_YOUR_WRITES}, cookie store"
# The pin shows what it takes to read from two servers at all: it asks nobody for it.
SITES = (PLAIN.name, TIMED_PIN, READ_YOUR_WRITES, COOKIE_STORE, MONOTONIC)
# The first requests of a round find caches cold, and connections closed.
WARM_UP_SECONDS = 0.5


class Round(NamedTuple):
    """One site under load for a while, one page, no writes."""

    rate: float
    """Requests per second."""
    cpu: dict[str, float]
    """CPU time of each kind of server in microseconds per request."""


class Throughput(NamedTuple):
    """One site and one page beside plain Django: what all rounds come to."""

    rate: float
    """The median."""
    ratios: list[float]
    """To plain Django's rate in the same round, sorted."""
    cpu: dict[str, float]
    """The medians."""


def measure_throughput(servers: Servers, plan: Plan) -> dict[str, dict[str, Throughput]]:
    """Return, for each page, what each site comes to."""
    refresh(servers)
    with ExitStack() as stack:
        sites = {name: stack.enter_context(_site(servers, name)) for name in SITES}
        return {page: _compare(servers, sites, page, plan) for page in plan.pages}


def _site(servers: Servers, name: str) -> Site:
    if name == COOKIE_STORE:
        return servers.site(READ_YOUR_WRITES, STORE={"BACKEND": "django_pglb.stores.CookieStore"})
    return servers.site(name)


def _compare(servers: Servers, sites: dict[str, Site], page: str, plan: Plan) -> dict[str, Throughput]:
    rounds: dict[str, list[Round]] = {name: [] for name in sites}
    for number in range(plan.rounds):
        # Forwards and backwards, so that a machine that gets slower favours nobody.
        for name in reversed(sites) if number % 2 else sites:
            rounds[name].append(_run(servers, sites[name], page, plan.round_seconds))
        print(f"{page}, round {number + 1}: {', '.join(f'{rounds[name][-1].rate:.0f}/s' for name in sites)}", flush=True)
    return {name: _summary(rounds[name], rounds[PLAIN.name]) for name in sites}


def _run(servers: Servers, site: Site, page: str, seconds: float) -> Round:
    # Who has a session is somebody, also where the view does not ask who.
    devices = [Device(0)] if page == ANONYMOUS_PAGE else devices_of(servers.sessions)
    with Load(site.port, devices, path=page, writes=0) as load:
        time.sleep(WARM_UP_SECONDS)
        before, begin = _cpu(servers, site), time.monotonic()
        time.sleep(seconds)
        window, after = Window(begin, time.monotonic()), _cpu(servers, site)
    rate = window.rate(load.requests)
    requests = max(1, rate * window.seconds)
    return Round(rate, {kind: (after[kind] - before[kind]) * 1e6 / requests for kind in after})


def _cpu(servers: Servers, site: Site) -> dict[str, float]:
    cluster = servers.cluster
    return {
        "gunicorn": cpu_seconds(site.master_pid),
        "primary": cpu_seconds(cluster.primary.pid),
        "replicas": sum(cpu_seconds(replica.pid) for replica in cluster.replicas),
        "Redis": cpu_seconds(cluster.redis.pid),
    }


def _summary(rounds: Iterable[Round], base: Iterable[Round]) -> Throughput:
    rounds = list(rounds)
    return Throughput(
        rate=median(one.rate for one in rounds),
        ratios=sorted(one.rate / max(1, plain.rate) for one, plain in zip(rounds, base, strict=True)),
        cpu={kind: median(one.cpu[kind] for one in rounds) for kind in rounds[0].cpu},
    )
