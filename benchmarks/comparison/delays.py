"""The contenders one after the other, on replicas that lag by a given time."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..contenders import Contender
from ..servers import Servers
from .bounds import honest_share, monotonic_share
from .figures import Truth, Window, good_reads, judge, percentile
from .load import Load, devices_of
from .plan import Plan
from .positions import Positions
from .stage import PLAIN, PLAIN_AGAIN, staged
from .transactions import share_on_primary, transactions
from .trial import attempt


class Measured(NamedTuple):
    """One contender at one delay. Rates are per second, times in milliseconds."""

    rate: float
    p50: float
    p99: float
    on_replicas: float
    """The share of GET reads whose register a replica has answered."""
    bound: float
    """The share of GET reads for which some replica had, when they started, all that their user had written."""
    monotonic_bound: float
    """The same for readers who do not go back in time either."""
    transactions_on_primary: float
    truth: Truth


Row = tuple[str, Measured | str]
"""A contender's name, and its figures or why there are none."""


def measure_delays(servers: Servers, plan: Plan) -> dict[float, list[Row]]:
    """Return, for each delay, the contenders' names and figures in the order of the runs; plain Django is first and last."""
    runs = {**{contender.name: contender for contender in plan.contenders}, PLAIN_AGAIN: PLAIN}
    return {delay: [_row(servers, name, contender, delay, plan) for name, contender in runs.items()] for delay in plan.delays}


def _row(servers: Servers, name: str, contender: Contender, delay: float, plan: Plan) -> Row:
    return name, attempt(f"replay delay {delay:g} s, {name}", lambda: _measure(servers, contender, delay, plan))


def _measure(servers: Servers, contender: Contender, delay: float, plan: Plan) -> Measured:
    with (
        staged(servers, contender, delay) as site,
        Positions(servers.cluster) as positions,
        Load(site.port, devices_of(servers.sessions)) as load,
    ):
        # Only then is the share of users with a write that no replica has as large as it will be.
        time.sleep(max(delay, plan.warm_up_seconds))
        before, begin = transactions(servers.cluster), time.monotonic()
        time.sleep(plan.seconds)
        window, after = Window(begin, time.monotonic()), transactions(servers.cluster)
    seen = window.started_in(load.requests)
    reads = good_reads(seen)
    replicas = {replica.port for replica in servers.cluster.replicas}
    return Measured(
        rate=window.rate(load.requests),
        p50=percentile(seen, 0.5),
        p99=percentile(seen, 0.99),
        on_replicas=sum(read.server in replicas for read in reads) / max(1, len(reads)),
        bound=honest_share(reads, load.requests, positions),
        monotonic_bound=monotonic_share(reads, load.requests, positions),
        transactions_on_primary=share_on_primary(before, after),
        truth=judge(window, load.requests),
    )
