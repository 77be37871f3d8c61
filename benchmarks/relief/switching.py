"""The measurement: the same load on the site without the package and then, from one moment on, on the site with it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import NamedTuple

from django_pglb.testing import Cluster

from ..comparison.figures import Truth, Window, good_reads, judge, percentile
from ..comparison.load import Load, devices_of
from ..comparison.request import Request
from ..comparison.stage import PLAIN, READ_YOUR_WRITES, refresh
from ..servers import Servers, Site
from .activity import Activity, Sample, Sampler, between
from .paced import PacedLoad
from .plan import Plan

REPLAY_DELAY_SECONDS = 0.05
# Few, so that many of their reads come so soon after their writes that a replica would miss these.
USERS = 20
SITES = BEFORE, AFTER = (PLAIN.name, READ_YOUR_WRITES)
# The names of servers: the cluster's own for its hosts, and ours.
PRIMARY, REDIS = "primary", "Redis"
# Of what the slower site carries: room to spare, so that nothing queues, and yet enough to be seen in the servers' CPU time.
LOAD_SHARE = 0.4
RATE_STEP = 5


class Phase(NamedTuple):
    """The load on one site, from when it has settled. Times are in milliseconds."""

    site: str
    activity: Activity
    p50: float
    p99: float
    truth: Truth
    soon: int
    """Reads less than the replay delay after a write of their user: those that a replica might have answered without it."""

    @property
    def transactions_on_primary(self) -> float:
        """The primary's share of all hosts' transactions in per cent."""
        return 100 * self.activity.transactions[PRIMARY] / max(1, self.activity.all_transactions)

    @property
    def primary_cpu(self) -> float:
        return self.activity.cpu[PRIMARY]

    @property
    def replicas_cpu(self) -> float:
        """Of all replicas together, in per cent of one core."""
        return sum(self.activity.cpu[name] for name in self.activity.transactions if name != PRIMARY)

    @property
    def redis_cpu(self) -> float:
        return self.activity.cpu[REDIS]

    @property
    def servers_cpu(self) -> float:
        return self.primary_cpu + self.replicas_cpu + self.redis_cpu

    @property
    def site_cpu(self) -> float:
        """Of gunicorn and its workers."""
        return self.activity.cpu[self.site]


class Switch(NamedTuple):
    """What was measured."""

    capacities: list[float]
    """Requests per second that each site carries at most."""
    rate: float
    """Requests per second that were sent."""
    moment: float
    """When the first request went to the site with the package."""
    before: Phase
    after: Phase
    settling: Truth
    """What was read from the moment of switching until the site with the package had settled."""
    samples: list[Sample]
    """Second by second."""

    def activities(self, step: int) -> list[Activity]:
        """Return what was done in every `step` seconds."""
        return [between(first, last) for first, last in pairwise(self.samples[::step])]


def measure_switch(servers: Servers, plan: Plan) -> Switch:
    """Run both sites, and let a constant load switch from one to the other."""
    refresh(servers)
    for replica in servers.cluster.replicas:
        replica.delay_replay(REPLAY_DELAY_SECONDS)
    with ExitStack() as stack:
        # The name by which the servers know its connections.
        sites = [stack.enter_context(Site(servers.environment(name, PGAPPNAME=name))) for name in SITES]
        capacities = [capacity(servers, site, plan) for site in sites]
        rate = rate_for(capacities)
        print(f"The sites carry {' and '.join(f'{most:.0f}' for most in capacities)} requests/s; sent are {rate}/s.", flush=True)
        time.sleep(plan.quiet_seconds)
        return switch(servers, sites, capacities, rate, plan)


def capacity(servers: Servers, site: Site, plan: Plan) -> float:
    """Return how many requests per second the site carries."""
    with Load(site.port, devices_of(servers.sessions[:USERS])) as load:
        begin = time.monotonic()
        time.sleep(plan.calibration_seconds)
        window = Window(begin, time.monotonic())
    return window.rate(load.requests)


def rate_for(capacities: Sequence[float]) -> int:
    """Return a rate that all sites carry with room to spare."""
    return max(RATE_STEP, int(min(capacities) * LOAD_SHARE) // RATE_STEP * RATE_STEP)


def switch(servers: Servers, sites: Sequence[Site], capacities: list[float], rate: float, plan: Plan) -> Switch:
    """Send the load to one site after the other."""
    roots = {REDIS: servers.cluster.redis.pid, **{name: site.master_pid for name, site in zip(SITES, sites, strict=True)}}
    load = PacedLoad([site.port for site in sites], devices_of(servers.sessions[:USERS]), rate=rate, seconds=plan.seconds)
    with Sampler(servers.cluster, roots) as sampler, load:
        before = observe(sampler, load, 0, plan)
        disconnect(servers.cluster, BEFORE)
        after = observe(sampler, load, 1, plan)
    moment = load.begins_at(1)
    return Switch(
        capacities=capacities,
        rate=rate,
        moment=moment,
        before=phase(BEFORE, load, before),
        after=phase(AFTER, load, after),
        settling=judge(Window(moment, moment + plan.settling_seconds), load.requests),
        samples=sampler.samples,
    )


def observe(sampler: Sampler, load: PacedLoad, place: int, plan: Plan) -> Activity:
    """Wait until the site at this place has settled, and until it has answered everything; return what was done between the two."""
    time.sleep(max(0, load.begins_at(place) + plan.settling_seconds - time.monotonic()))
    settled = sampler.sample()
    load.wait_until_answered(place)
    return between(settled, sampler.sample())


def disconnect(cluster: Cluster, site: str) -> None:
    """Close the connections of a site that gets no more requests.

    An idle backend would tell of its last transactions ten seconds later, amid those of the other site; one that ends tells at once.
    """
    cluster.primary.ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s", (site,))


def phase(site: str, load: PacedLoad, activity: Activity) -> Phase:
    """Return what clients saw while the servers did that. Whoever has waited for a free client has waited for the site."""
    window = Window(activity.begin, activity.end)
    waits = window.started_in([turn.request._replace(started=turn.due) for turn in load.turns])
    return Phase(
        site, activity, percentile(waits, 0.5), percentile(waits, 0.99), judge(window, load.requests), count_soon(window, load.requests)
    )


def count_soon(window: Window, history: Sequence[Request]) -> int:
    """Return how many reads started less than the replay delay after an acknowledged write of their user."""
    acknowledged = defaultdict(list)
    for request in history:
        if request.is_write and request.is_answered:
            acknowledged[request.user].append(request.ended)
    reads = good_reads(window.started_in(history))
    return sum(any(0 <= read.started - moment < REPLAY_DELAY_SECONDS for moment in acknowledged[read.user]) for read in reads)
