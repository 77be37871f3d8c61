"""How much is measured."""

from __future__ import annotations

from typing import NamedTuple

from ..contenders import CONTENDERS, Contender


class Plan(NamedTuple):
    """Times are in seconds."""

    contenders: tuple[Contender, ...]
    """Plain Django is the first."""
    contenders_under_faults: tuple[Contender, ...]
    delays: tuple[float, ...]
    warm_up_seconds: float
    seconds: float
    """Of measuring, after the warm-up."""
    undisturbed_seconds: float
    """Before a fault; the next two are from the fault to its healing, and from then on."""
    fault_seconds: float
    healing_seconds: float
    pages: tuple[str, ...]
    """Whose throughput is compared, each in so many rounds."""
    rounds: int
    round_seconds: float


FULL = Plan(
    contenders=CONTENDERS,
    contenders_under_faults=CONTENDERS,
    delays=(0, 0.05, 0.5, 5, 15),
    warm_up_seconds=3,
    seconds=8,
    undisturbed_seconds=6,
    fault_seconds=6,
    healing_seconds=4,
    pages=("/", "/small/", "/stranger/"),
    # Many short ones rather than few long ones: what else the machine does is then the same for all of a round.
    rounds=21,
    round_seconds=1.5,
)
SHORT_NAMES = ("plain Django", "django-multidb-router", "django-pglb, read_your_writes")
SHORT = Plan(
    contenders=tuple(contender for contender in CONTENDERS if contender.name in SHORT_NAMES),
    contenders_under_faults=CONTENDERS[-1:],
    delays=(0, 0.5),
    warm_up_seconds=0.5,
    seconds=2,
    undisturbed_seconds=1,
    fault_seconds=2,
    healing_seconds=0.5,
    pages=("/", "/stranger/"),
    rounds=1,
    round_seconds=0.5,
)
