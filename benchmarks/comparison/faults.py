"""The contenders one after the other, each while a server is killed or frozen, and healed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from django_pglb.testing import Cluster

from ..contenders import Contender
from ..servers import Servers
from .figures import Truth, Window, judge, percentile
from .load import Load, devices_of
from .plan import Plan
from .request import Request
from .stage import staged
from .trial import attempt


class Fault(NamedTuple):
    """What happens to the cluster; `Cluster.heal()` undoes it."""

    name: str
    inflict: Callable[[Cluster], None]


FAULTS = (
    Fault("A replica is killed", lambda cluster: cluster.replicas[0].kill()),
    Fault("A replica is frozen", lambda cluster: cluster.replicas[0].freeze()),
    Fault("Redis is killed", lambda cluster: cluster.redis.kill()),
)


class Endured(NamedTuple):
    """One contender under one fault. Rates are per second, times in milliseconds."""

    rate_before: float
    rate_during: float
    rate_after: float
    """Once the servers are healed."""
    p99_before: float
    p50: float
    """Of all requests of the run, the undisturbed ones included, as the two that follow."""
    p99: float
    slowest: float
    p99_but_in_flight: float
    """Without those requests that were under way when the fault came, wherever they were read."""
    truth: Truth


Row = tuple[str, Endured | str]
"""A contender's name, and its figures or why there are none."""


def measure_faults(servers: Servers, plan: Plan) -> dict[str, list[Row]]:
    """Return, for each fault, the contenders' names and figures."""
    return {fault.name: [_row(servers, contender, fault, plan) for contender in plan.contenders_under_faults] for fault in FAULTS}


def _row(servers: Servers, contender: Contender, fault: Fault, plan: Plan) -> Row:
    return contender.name, attempt(f"{fault.name}, {contender.name}", lambda: _measure(servers, contender, fault, plan))


def _measure(servers: Servers, contender: Contender, fault: Fault, plan: Plan) -> Endured:
    with staged(servers, contender) as site:
        try:
            return _endure(site.port, servers, fault, plan)
        finally:
            # A site that waits for a frozen server could not end.
            servers.cluster.heal()


def _endure(port: int, servers: Servers, fault: Fault, plan: Plan) -> Endured:
    with Load(port, devices_of(servers.sessions)) as load:
        time.sleep(plan.warm_up_seconds)
        begin = time.monotonic()
        time.sleep(plan.undisturbed_seconds)
        struck = time.monotonic()
        fault.inflict(servers.cluster)
        broken = time.monotonic()
        time.sleep(plan.fault_seconds)
        healing = time.monotonic()
        servers.cluster.heal()
        healed = time.monotonic()
        time.sleep(plan.healing_seconds)
        end = time.monotonic()
    return _figures(load.requests, Window(begin, struck), Window(struck, broken), Window(broken, healing), Window(healed, end))


def _figures(history: Sequence[Request], before: Window, breaking: Window, during: Window, after: Window) -> Endured:
    run = Window(before.begin, after.end)
    seen = run.started_in(history)
    return Endured(
        rate_before=before.rate(history),
        rate_during=during.rate(history),
        rate_after=after.rate(history),
        p99_before=percentile(before.ended_in(history), 0.99),
        p50=percentile(seen, 0.5),
        p99=percentile(seen, 0.99),
        slowest=percentile(seen, 1),
        p99_but_in_flight=percentile([request for request in seen if not _is_in_flight(request, breaking)], 0.99),
        truth=judge(run, history),
    )


def _is_in_flight(request: Request, breaking: Window) -> bool:
    return request.started < breaking.end and request.ended >= breaking.begin
