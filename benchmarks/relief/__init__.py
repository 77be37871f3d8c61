"""What switching the package on takes off the primary, under a constant load."""

from __future__ import annotations

from ..section import Extent, Section
from ..servers import Servers
from .page import text
from .picture import draw
from .plan import FULL, SHORT
from .switching import measure_switch


def measure(extent: Extent) -> Section:
    """Switch the package on under a constant load, and return the section about what that changes."""
    plan = SHORT if extent.is_short else FULL
    with Servers() as servers:
        measured = measure_switch(servers, plan)
    draw(measured, extent.pictures)
    return Section("What it takes off the primary", text(measured, plan))
