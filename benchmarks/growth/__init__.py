"""How the costs grow: with replicas that run here, and with so many processes and replicas as can only be simulated."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from benchmarks.section import Extent, Section

from .bookkeeping import measure_bookkeeping
from .herd import after_failed_reads, started_apart, started_together, without_jitter
from .knowledge import DEFAULTS
from .page import Findings, Herd, write_page
from .reads import Case, simulate
from .reads_page import Reads, Simulated
from .scenario import Scenario, limits, needs, unit_costs
from .trial import run_trial

REPLICAS_HERE = (1, 2, 4, 8)
REPLICAS_HERE_SHORT = (1, 2)

USUAL = Case(lag_seconds=0.5, write_share=0.1, check_interval=DEFAULTS.check_interval, replicas=50, processes=4, users=200, seconds=60)
USUAL_SHORT = USUAL._replace(replicas=10, processes=2, users=40, seconds=10)
LAGS = (0.05, 0.5, 2, 5, 15)
LAGS_SHORT = (0.05, 0.5)
WRITE_SHARES = (0.01, 0.1, 0.3)
CHECK_INTERVALS = (0.2, 1.0, 5.0)
LAGS_OF_INTERVALS = (0.5, 5)
REPLICAS_SIMULATED = (2, 5, 10, 20, 50)

HERD_SECONDS = 120


def measure(extent: Extent) -> Section:
    """Measure on this machine, simulate the rest, and say where the first bottleneck is."""
    scenario = Scenario()
    trials = [run_trial(count, is_short=extent.is_short) for count in (REPLICAS_HERE_SHORT if extent.is_short else REPLICAS_HERE)]
    counts = (*(trial.replicas for trial in trials), scenario.replicas)
    books = {count: measure_bookkeeping(count, rounds=3 if extent.is_short else 60) for count in counts}
    costs = unit_costs(trials, books, scenario)
    found = Findings(
        scenario=scenario,
        trials=trials,
        books=books,
        costs=costs,
        needs=needs(scenario, costs),
        limits=limits(scenario, costs),
        herd=simulate_herd(scenario),
        reads=simulate_reads(USUAL_SHORT, LAGS_SHORT) if extent.is_short else simulate_reads(USUAL, LAGS),
    )
    return Section("How it grows", write_page(found))


def simulate_herd(scenario: Scenario) -> Herd:
    """Return how the probes of all processes fall on one server."""
    random.seed(1)  # the pauses are drawn from the generator that all share
    arguments = (scenario.processes, DEFAULTS.check_interval, HERD_SECONDS)
    return Herd(started_together(*arguments), started_apart(*arguments), without_jitter(*arguments), after_failed_reads(scenario.processes))


def simulate_reads(usual: Case, lags: Sequence[float]) -> Reads:
    """Return which reads fall to the primary in the usual case and others."""
    return Reads(
        usual=usual,
        by_lag=simulate_each(usual._replace(lag_seconds=lag, write_share=share) for lag in lags for share in WRITE_SHARES),
        by_interval=simulate_each(
            usual._replace(check_interval=interval, lag_seconds=lag) for interval in CHECK_INTERVALS for lag in LAGS_OF_INTERVALS
        ),
        by_replicas=simulate_each(usual._replace(replicas=count) for count in REPLICAS_SIMULATED if count <= usual.replicas),
    )


def simulate_each(cases: Iterable[Case]) -> Simulated:
    return [(case, simulate(case)) for case in cases]
