"""The section's Markdown: `page.md`, with the table and the numbers that were measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..comparison.load import CLIENTS
from ..section import table
from ..servers import THREADS, WORKERS
from .picture import NAME
from .plan import Plan
from .switching import REPLAY_DELAY_SECONDS, USERS, Phase, Switch

PAGE = Path(__file__).with_name("page.md")
HEADER = ("", "before: plain Django", "after: django-pglb", "after / before")


def text(measured: Switch, plan: Plan) -> str:
    """Return the section's text."""
    return (
        PAGE.read_text()
        .format(
            delay=f"{1000 * REPLAY_DELAY_SECONDS:.0f}",
            users=USERS,
            workers=WORKERS,
            threads=THREADS,
            clients=CLIENTS,
            capacities=" and ".join(f"{most:.0f}" for most in measured.capacities),
            rate=f"{measured.rate:.0f}",
            seconds=f"{plan.seconds:g}",
            settling=f"{plan.settling_seconds:g}",
            picture=NAME,
            table=table(HEADER, rows(measured)),
            settling_missed=measured.settling.missed,
            settling_reads=measured.settling.reads,
            comparison=comparison(measured),
            python=python_times(measured.before),
            on_replicas=percent(100 - measured.after.transactions_on_primary),
        )
        .rstrip()
    )


def rows(measured: Switch) -> list[list[str]]:
    """Return the table's lines."""
    compared: list[tuple[str, Callable[[Phase], float], Callable[[float], str]]] = [
        ("transactions per second, all hosts", lambda phase: phase.activity.all_transactions, number),
        ("of these on the primary", lambda phase: phase.transactions_on_primary, percent),
        ("CPU time, primary", lambda phase: phase.primary_cpu, percent),
        ("CPU time, both replicas", lambda phase: phase.replicas_cpu, percent),
        ("CPU time, Redis", lambda phase: phase.redis_cpu, percent),
        ("CPU time, all these servers", lambda phase: phase.servers_cpu, percent),
        ("CPU time, gunicorn", lambda phase: phase.site_cpu, percent),
        ("latency, median, ms", lambda phase: phase.p50, number),
        ("latency, 99th percentile, ms", lambda phase: phase.p99, number),
    ]
    phases = (measured.before, measured.after)
    lines = [[title, *(show(value(phase)) for phase in phases), ratio(*map(value, phases))] for title, value, show in compared]
    soon = ["GET requests soon after an own write", *(str(phase.soon) for phase in phases), ""]
    missed = ["missed own writes", *(f"{phase.truth.missed} of {phase.truth.reads:,}" for phase in phases), ""]
    errors = ["errors", *(str(phase.truth.errors.total()) for phase in phases), ""]
    return [*lines, soon, missed, errors]


def comparison(measured: Switch) -> str:
    """Return what became of the primary here, beside what became of GitLab's."""
    before, after = measured.before.primary_cpu, measured.after.primary_cpu
    return (
        f"there the primary was left with 14 to 29 % of its CPU use and a third of the transactions,"
        f" here with {percent(100 * after / before) if before else 'an unknown part'} of its CPU time"
        f" and {percent(measured.after.transactions_on_primary)} of the transactions."
    )


def python_times(phase: Phase) -> str:
    """Return how many times the servers' CPU time the site takes."""
    return f"{phase.site_cpu / phase.servers_cpu:.1f} times" if phase.servers_cpu else "several times"


def percent(value: float) -> str:
    return f"{value:.1f} %"


def number(value: float) -> str:
    return f"{value:.1f}"


def ratio(before: float, after: float) -> str:
    return f"{after / before:.2f}" if before else ""
