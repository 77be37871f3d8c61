"""The section's Markdown: `page.md`, with the tables and numbers that were measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TypeVar

from ..section import table
from . import delays as delayed
from . import faults as faulty
from .delays import Measured
from .faults import Endured
from .figures import Truth
from .picture import NAME
from .stage import MONOTONIC, PLAIN, PLAIN_AGAIN, READ_YOUR_WRITES, TIMED_PIN
from .throughput import PAGES, Throughput

Result = TypeVar("Result")
Rates = Mapping[str, Mapping[str, Throughput]]

PAGE = Path(__file__).with_name("page.md")
PACKAGES = ("django-multidb-router", "django_replicated")
DELAY_HEADER = (
    "",
    "req/s",
    "to plain",
    "p50, ms",
    "p99, ms",
    "reads on replicas",
    "honest bound",
    "above it, points",
    "transactions on the primary",
    "missed own write",
    "back in time",
    "errors",
)
FAULT_HEADER = (
    "",
    "req/s before",
    "during",
    "healed",
    "p50, ms",
    "p99, ms",
    "to p99 before",
    "without those in flight",
    "slowest, ms",
    "missed own write",
    "back in time",
    "errors",
)


def text(
    delays: Mapping[float, Sequence[delayed.Row]],
    faults: Mapping[str, Sequence[faulty.Row]],
    throughput: Rates | str,
) -> str:
    """Return the whole section."""
    return PAGE.read_text().format(
        versions=", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        delays="\n\n".join(f"{_delay_title(delay)}\n\n{_delay_table(rows)}" for delay, rows in delays.items()),
        distances=_distances(delays, READ_YOUR_WRITES, lambda one: one.bound),
        monotonic_distances=_distances(delays, MONOTONIC, lambda one: one.monotonic_bound),
        monotonic_bounds=_monotonic_bounds(delays),
        picture=NAME,
        faults="\n\n".join(f"**{name}**\n\n{_fault_table(rows)}" for name, rows in faults.items()),
        throughput=throughput if isinstance(throughput, str) else _throughput_table(throughput),
        ratios="–" if isinstance(throughput, str) else _ratios(throughput),
    )


def _delay_title(delay: float) -> str:
    return f"**Replay delay: {delay:g} s**" if delay else "**No replay delay**"


def _delay_table(rows: Sequence[delayed.Row]) -> str:
    rates = [measured.rate for name, measured in rows if name in (PLAIN.name, PLAIN_AGAIN) and isinstance(measured, Measured)]
    base = sum(rates) / len(rates) if rates else 0.0
    return table(DELAY_HEADER, [_row(name, measured, lambda one: _delay_cells(one, base), DELAY_HEADER) for name, measured in rows])


def _delay_cells(one: Measured, base: float) -> list[str]:
    return [
        f"{one.rate:.0f}",
        _ratio(one.rate, base),
        f"{one.p50:.0f}",
        f"{one.p99:.0f}",
        _percent(one.on_replicas),
        _percent(one.bound),
        f"{100 * (one.on_replicas - one.bound):+.1f}",
        _percent(one.transactions_on_primary),
        *_truth_cells(one.truth),
    ]


def _fault_table(rows: Sequence[faulty.Row]) -> str:
    return table(FAULT_HEADER, [_row(name, endured, _fault_cells, FAULT_HEADER) for name, endured in rows])


def _fault_cells(one: Endured) -> list[str]:
    return [
        f"{one.rate_before:.0f}",
        f"{one.rate_during:.0f}",
        f"{one.rate_after:.0f}",
        f"{one.p50:.0f}",
        f"{one.p99:.0f}",
        _ratio(one.p99, one.p99_before),
        _ratio(one.p99_but_in_flight, one.p99_before),
        f"{one.slowest:.0f}",
        *_truth_cells(one.truth),
    ]


def _truth_cells(truth: Truth) -> list[str]:
    return [_count(truth.missed, truth.reads), _count(truth.back, truth.reads), _errors(truth.errors)]


def _row(name: str, result: Result | str, cells: Callable[[Result], list[str]], header: Sequence[str]) -> list[str]:
    """Return a line of a table; why there are no figures stands where they would."""
    if isinstance(result, str):
        return [name, result, *([""] * (len(header) - 2))]
    return [name, *cells(result)]


def _distances(delays: Mapping[float, Sequence[delayed.Row]], wanted: str, bound: Callable[[Measured], float]) -> str:
    """Return by how many points one contender's share of reads on replicas is above (+) or below (-) a bound, at each delay."""
    points = [
        f"{100 * (one.on_replicas - bound(one)):+.1f} at {delay:g} s"
        for delay, rows in delays.items()
        for name, one in rows
        if name == wanted and isinstance(one, Measured)
    ]
    return ", ".join(points) or "–"


def _monotonic_bounds(delays: Mapping[float, Sequence[delayed.Row]]) -> str:
    return ", ".join(
        f"{_percent(one.monotonic_bound)} at {delay:g} s"
        for delay, rows in delays.items()
        for name, one in rows
        if name == MONOTONIC and isinstance(one, Measured)
    )


def _throughput_table(throughput: Rates) -> str:
    kinds = list(throughput["/"][PLAIN.name].cpu)
    header = ["page", "", "req/s", "to plain", "middle half", *(f"{kind}, µs" for kind in kinds), "together, µs"]
    rows = [
        [
            f"{PAGES[page]} (`{page}`)",
            name,
            f"{one.rate:.0f}",
            f"{median(one.ratios):.3f}",
            _middle_half(one.ratios),
            *(f"{one.cpu[kind]:.0f}" for kind in kinds),
            f"{sum(one.cpu.values()):.0f}",
        ]
        for page, sites in throughput.items()
        for name, one in sites.items()
    ]
    return table(header, rows)


def _middle_half(ratios: Sequence[float]) -> str:
    skipped = len(ratios) // 4
    return f"{ratios[skipped]:.3f} … {ratios[-1 - skipped]:.3f}"


def _ratios(throughput: Rates) -> str:
    """Return the median ratio of each site of ours for the page that has a target."""
    ours = {name: one for name, one in throughput["/"].items() if name not in (PLAIN.name, TIMED_PIN)}
    return ", ".join(f"{median(one.ratios):.2f} ({name})" for name, one in ours.items())


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.2g} %)" if count else "0"


def _errors(errors: Counter[str]) -> str:
    return ", ".join(f"{count} × {error}" for error, count in errors.most_common()) or "0"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
