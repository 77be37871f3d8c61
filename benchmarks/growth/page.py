"""Puts what was measured and simulated into words and tables. Every number comes from a value."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.section import table

from .bookkeeping import HORIZONS, Bookkeeping, looks_remembered
from .figures import figure, given, percent, seconds
from .herd import BUCKET_SECONDS, Burst
from .knowledge import DEFAULTS
from .reads_page import Reads, on_primary, write_reads
from .scenario import LOOKING, LOOKING_OF_ALL, Limit, Need, Scenario, UnitCosts
from .trial import Trial


class Herd(NamedTuple):
    """The bursts of probes that were simulated."""

    together: Burst
    apart: Burst
    in_step: Burst
    after_failed_reads: int


class Findings(NamedTuple):
    """Everything that the page tells of."""

    scenario: Scenario
    trials: list[Trial]
    books: dict[int, Bookkeeping]
    costs: UnitCosts
    needs: list[Need]
    limits: list[Limit]
    herd: Herd
    reads: Reads


def write_page(found: Findings) -> str:
    """Return the section's text."""
    parts = [here(found.trials), knowing(found.books), on_paper(found), herd(found), write_reads(found.reads), first_bottleneck(found)]
    return "\n\n".join(parts)


def here(trials: list[Trial]) -> str:
    counts = ", ".join(str(trial.replicas) for trial in trials)
    rows = [
        [
            str(trial.replicas),
            f"{figure(trial.first_unbound_us)} / {figure(trial.first_bound_us)} / {figure(trial.later_us)}",
            figure(trial.checker_ms_per_second),
            f"{min(trial.probes_per_second):.2f}–{max(trial.probes_per_second):.2f}",
            f"{figure(trial.probe_us)} / {figure(trial.hot_probe_us)}",
            f"{trial.checker_kib:,} + {trial.connections_kib:,}",
            seconds(trial.left_by_look_seconds),
            seconds(trial.left_by_read_seconds),
        ]
        for trial in trials
    ]
    header = [
        "Replicas",
        "First decision, unbound / bound / later ones, µs",
        "Checker, ms of processor a second",
        "Probes a second on each server",
        "One probe, cold / warm, µs of the server's processor",
        "Memory: checker + connections, KiB",
        "Killed: out after, by looks",
        "… by reads",
    ]
    return f"""\
### One process beside {counts} replicas, on this machine

Real servers, one new process for each row, every setting at its default (`CHECK_INTERVAL` {DEFAULTS.check_interval:g} s).
More replicas on the same cores cannot raise throughput, so throughput is not measured here: only what one process pays for each replica.
Decisions are medians: the first of a unit of work (for a reader whom nothing binds, and for one who is bound by a pointer), and later ones.
Probes are counted by the servers.
Their processor time is that of the server's process which answers: at the pace of one checker, when caches have gone cold, \
and for one probe directly after the other.
Memory is what the process alone has written to: by its checker, and then by one thread's connections to all replicas; \
what fits into pages that it had written to before is not seen.
The last two columns: median and longest time until a killed replica is out of the rotation, \
if only the checker looks, and while one thread reads.

{table(header, rows)}"""


def knowing(books: dict[int, Bookkeeping]) -> str:
    rows = [
        [
            str(book.replicas),
            figure(book.choice_us),
            figure(book.look_ms),
            figure(of_each_host(book)),
            *(figure(kib) for kib in book.kept_kib),
        ]
        for book in books.values()
    ]
    header = [
        "Replicas",
        "A bound choice, µs",
        "One look at all, ms",
        "The same for each host, µs",
        *(f"Kept after {times * looks_remembered()} looks, KiB" for times in HORIZONS),
    ]
    smallest, largest = books[min(books)], books[max(books)]
    growth = of_each_host(largest) / of_each_host(smallest)
    faster = "faster than the cluster" if growth > 2 else "as the cluster does"
    first, *_, last = largest.kept_kib
    return f"""\
### What a process knows, without the network

The package's own rules on probes that nobody had to send, so that larger clusters than this machine can run are seen, too.
With {largest.replicas} replicas each host costs {figure(growth)} times what it costs with {smallest.replicas}: \
the work of a look grows {faster}.
Memory {"is bounded" if last < 1.1 * first else "grows"}: {figure(first)} KiB for {largest.replicas} replicas \
when nothing was forgotten yet, {figure(last)} KiB after {HORIZONS[-1]} times as long.

{table(header, rows)}"""


def of_each_host(book: Bookkeeping) -> float:
    """Return the microseconds that one look costs for each host."""
    return book.look_ms * 1000 / (book.replicas + 1)


def on_paper(found: Findings) -> str:
    scenario, costs = found.scenario, found.costs
    rows = [[need.what, need.formula, f"{figure(need.amount)} {need.unit}".strip()] for need in found.needs]
    return f"""\
### {scenario.processes:,} processes and {scenario.replicas} replicas, on paper

Assumed of each process: {scenario.threads} thread, {scenario.requests_per_second:g} requests a second, \
{given(scenario.identified_share)} of them identified, {given(scenario.write_share)} of them writes, and connections that are kept.
Settings are the defaults: `CHECK_INTERVAL` {DEFAULTS.check_interval:g} s, `POINTER_SECONDS` {DEFAULTS.pointer_seconds:g} s.
What one of each costs was measured above, and for Redis: {figure(costs.load_us)} µs of its processor for a load of two identities, \
{figure(costs.save_us)} µs for a save, {figure(costs.bytes_per_pointer)} bytes for a pointer.
That was with one client at a time; a busy Redis does more in the same time.

{table(["Of what", "How much", "Amount"], rows)}"""


def herd(found: Findings) -> str:
    scenario, bursts = found.scenario, found.herd
    even = scenario.processes / DEFAULTS.check_interval * BUCKET_SECONDS
    width = f"{BUCKET_SECONDS * 1000:g} ms"
    named = {
        "all start at one moment": bursts.together,
        "they start at any moment": bursts.apart,
        "all start at one moment, and no interval is jittered": bursts.in_step,
    }
    rows = [[name, *(f"{count:,}" for count in burst)] for name, burst in named.items()]
    return f"""\
### A herd?

How many probes begin at one server within the worst {width}, of {scenario.processes:,} processes whose pauses are the checker's own.
Evenly spread it would be {figure(even)}.
A release that starts every process at once is seen in the first second, and connects them all at once; the jitter then spreads them.
When a host fails a read of every process at one moment, the hurried looks that follow come \
{bursts.after_failed_reads:,} in the worst {width}.

{table([f"Worst {width}", "first second", "tenth second", "second minute"], rows)}"""


def first_bottleneck(found: Findings) -> str:
    first, second, *_ = found.limits
    rows = [[limit.what, f"{limit.processes:,.0f}", limit.remedy] for limit in found.limits]
    scenario = found.scenario
    fair = 1 / scenario.hosts
    over = [outcome for _, outcome in found.reads.by_lag if on_primary(outcome) > fair]
    busy_case, busiest = max(found.reads.by_lag, key=lambda pair: on_primary(pair[1]))
    of_process, of_all = (next(need for need in found.needs if need.what.startswith(what)) for what in (LOOKING, LOOKING_OF_ALL))
    return f"""\
### Where the first bottleneck is

As processes are added, the first thing to run out is {first.what}: with {first.processes:,.0f} processes, \
of {scenario.processes:,} assumed.
Next is {second.what}: with {second.processes:,.0f}.

{table(["What runs out", "With so many processes", "What helps"], rows)}

As replicas are added, it is the processes themselves: with {scenario.replicas} replicas \
each spends {figure(of_process.amount)} {of_process.unit} on its checker, \
all {scenario.processes:,} together {figure(of_all.amount)} {of_all.unit}.

Whatever the number of either, it is the primary that fills up first as lag and writes grow.
It has its fair share, that of one host among {scenario.hosts}, as long as no more than {percent(fair)} of the reads fall to it.
That is exceeded in {len(over)} of the {len(found.reads.by_lag)} cases of lag and writes above: \
at {busy_case.lag_seconds:g} s of lag with {given(busy_case.write_share)} writes it answers {percent(on_primary(busiest))} of the reads.
More replicas do not help there, only quicker ones do."""
