"""This package, and what users would pick instead, on the same servers under the same load."""

from __future__ import annotations

from ..section import Extent, Section
from ..servers import Servers
from . import report
from .delays import measure_delays
from .faults import measure_faults
from .picture import draw
from .plan import FULL, SHORT
from .throughput import measure_throughput
from .trial import attempt


def measure(extent: Extent) -> Section:
    """Run every contender at every delay and under every fault, and return the section about them."""
    plan = SHORT if extent.is_short else FULL
    with Servers() as servers:
        delays = measure_delays(servers, plan)
        faults = measure_faults(servers, plan)
        throughput = attempt("throughput", lambda: measure_throughput(servers, plan))
    draw(delays, extent.pictures)
    return Section("Against what users would pick instead", report.text(delays, faults, throughput))
