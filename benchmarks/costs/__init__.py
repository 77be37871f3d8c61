"""What a request costs: the work of each step in microseconds, and the messages that a request sends."""

from __future__ import annotations

import json

from ..section import Extent, Section
from . import report
from .contenders import CONTENDERS
from .micro import measure_all
from .servers import LOGGED, QUIET, run_child, running_servers


def measure(extent: Extent) -> Section:
    """Start servers of our own, run every case, and return the section about them."""
    with running_servers() as servers:
        trips = {
            name: json.loads(run_child(name, servers[LOGGED], "benchmarks.costs.trips", is_short=extent.is_short)) for name in CONTENDERS
        }
        cells = measure_all(servers[QUIET], is_short=extent.is_short)
    return Section("What a request costs", report.text(cells, trips))
