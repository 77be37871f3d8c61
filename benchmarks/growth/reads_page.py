"""Puts into words and tables which reads fall to the primary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.section import table

from .figures import figure, given, percent
from .knowledge import DEFAULTS
from .reads import CLOCK_ERROR_SECONDS, DEVICES, REDIRECT_SECONDS, REQUESTS_PER_SECOND, Case, Outcome
from .world import FASTEST, SLOWEST, SWING

Simulated = list[tuple[Case, Outcome]]


class Reads(NamedTuple):
    """What was simulated."""

    usual: Case
    by_lag: Simulated
    """And by share of writes."""
    by_interval: Simulated
    by_replicas: Simulated

    @property
    def every_case(self) -> Simulated:
        return [*self.by_lag, *self.by_interval, *self.by_replicas]


READ_COLUMNS = (
    "Reads on the primary",
    "Honest bound",
    "On paper",
    "The primary's reads, as a multiple of a replica's",
    "Answers discarded, for each 100 reads",
    "… for one read, at most",
)


def write_reads(found: Reads) -> str:
    case = found.usual
    outcomes = [outcome for _, outcome in found.every_case]
    wrong, total = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("missed", "reads"))
    distance = max(on_primary(outcome) - due(outcome) for _, outcome in found.by_lag)
    worst_case, worst = max(found.every_case, key=lambda pair: discarded(pair[1]))
    by_lag = [[f"{each.lag_seconds:g} s", given(each.write_share), *read_columns(each, outcome)] for each, outcome in found.by_lag]
    by_interval = [
        [f"{each.check_interval:g} s", f"{each.lag_seconds:g} s", *read_columns(each, outcome)] for each, outcome in found.by_interval
    ]
    by_replicas = [[str(each.replicas), *read_columns(each, outcome)] for each, outcome in found.by_replicas]
    return f"""\
### Reads that fall to the primary

Simulated, with {case.replicas} replicas: the package's own rules, and servers, clocks and users that are not there.
{case.processes} of the processes are simulated, each with its own checker, and stand for all.
{case.users} users have {DEVICES} devices, each of which makes {REQUESTS_PER_SECOND:g} requests a second, \
and reads a page {REDIRECT_SECONDS * 1000:g} ms after each write.
Each replica's lag is {FASTEST:g} to {SLOWEST:g} times the one given, and swings by {given(SWING)}; \
clocks of processes are wrong by {CLOCK_ERROR_SECONDS * 1000:g} ms.
The honest bound is the share of reads for which no replica at all had replayed the reader's last write at that moment.
On paper: of reads that come by chance 1 - exp(-w × lag), with a user's w writes a second and the quickest replica's lag, \
and all that follow a write sooner than that.
Reads without the reader's own write: {wrong} of {total:,}.
At {DEFAULTS.check_interval:g} s between looks the primary answers at most {100 * distance:.1f} points more than it must.
Answers are discarded when the proof that comes with them falls short, and then another replica is asked: \
at most {figure(100 * discarded(worst))} for each 100 reads, with {worst_case.replicas} replicas {worst_case.lag_seconds:g} s behind \
and {given(worst_case.write_share)} writes, and {worst.most_discarded} one after the other for the unluckiest of these.

{table(["Replay lag", "Writes", *READ_COLUMNS], by_lag)}

With {given(case.write_share)} writes and other values of `CHECK_INTERVAL`:

{table(["`CHECK_INTERVAL`", "Replay lag", *READ_COLUMNS], by_interval)}

With {given(case.write_share)} writes, {case.lag_seconds:g} s of lag and other numbers of replicas:

{table(["Replicas", *READ_COLUMNS], by_replicas)}"""


def read_columns(case: Case, outcome: Outcome) -> Iterable[str]:
    of_one_replica = (outcome.reads - outcome.on_primary) / case.replicas
    return (
        percent(on_primary(outcome)),
        percent(due(outcome)),
        percent(outcome.expected_share),
        figure(outcome.on_primary / of_one_replica) if of_one_replica else "all",
        figure(100 * discarded(outcome)),
        str(outcome.most_discarded),
    )


def on_primary(outcome: Outcome) -> float:
    return outcome.on_primary / outcome.reads


def due(outcome: Outcome) -> float:
    return outcome.due_on_primary / outcome.reads


def discarded(outcome: Outcome) -> float:
    return outcome.discarded / outcome.reads
