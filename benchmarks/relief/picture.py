"""The plot: each host's transactions and CPU time before and after the load has switched to the site with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .activity import Activity
from .switching import Switch

NAME = "benchmarks-relief.svg"
# Okabe and Ito's colours, which people with colour blindness tell apart: a warm one for the primary, cool ones for its replicas.
COLOURS = ("#D55E00", "#0072B2", "#56B4E9")
# The operating system counts in steps of 10 ms for each process, so a single second would show little but these.
CPU_SAMPLES = 3
# Positions by the time across, and by the share of the axes' height upwards.
UNDER_TIME = ("data", "axes fraction")


def draw(measured: Switch, folder: Path) -> None:
    """Write the plot into the folder."""
    # Slow to import, and needed here alone.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # On white, whatever the page's colour is.
    figure = Figure(figsize=(9, 6.5), layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_transactions(upper, measured)
    _draw_cpu(lower, measured)
    upper.set_title(f"{measured.rate:.0f} requests per second all the time", loc="right", fontsize=10)
    upper.annotate("switched on", (0, 1), xytext=(0, 6), xycoords=UNDER_TIME, textcoords="offset points", ha="center", fontweight="bold")
    lower.set_xlabel("seconds since the load switched to the site with django-pglb")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS), frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    # The same numbers make the same file.
    with mpl.rc_context({"svg.hashsalt": NAME}):
        figure.savefig(folder / NAME, metadata={"Date": None})


def _draw_transactions(axes: Any, measured: Switch) -> None:
    """Stack the hosts' shares, second by second."""
    activities = measured.activities(1)
    shares = {
        name: [100 * one.transactions[name] / max(1, one.all_transactions) for one in activities] for name in activities[0].transactions
    }
    _stack(axes, measured, activities, shares)
    axes.set_ylim(0, 100)
    _name(axes, "Transactions", "share of all hosts' transactions, %")


def _draw_cpu(axes: Any, measured: Switch) -> None:
    """Stack the hosts' CPU time, and say what it comes to once a site has settled."""
    activities = measured.activities(CPU_SAMPLES)
    used = {name: [one.cpu[name] for one in activities] for name in activities[0].transactions}
    _stack(axes, measured, activities, used)
    for phase in (measured.before, measured.after):
        middle = (phase.activity.begin + phase.activity.end) / 2 - measured.moment
        label = f"on average: primary {phase.primary_cpu:.1f} %, replicas {phase.replicas_cpu:.1f} %"
        axes.annotate(label, (middle, 1), xycoords=UNDER_TIME, ha="center", va="top")
    # Room for the labels.
    axes.set_ylim(0, 1.2 * max(sum(stack) for stack in zip(*used.values(), strict=True)) or 1)
    _name(axes, "CPU time of each host's processes", "CPU time, % of one core")


def _stack(axes: Any, measured: Switch, activities: Sequence[Activity], values: Mapping[str, Sequence[float]]) -> None:
    """Draw the hosts' values on top of each other, as steps, and mark the moment of switching."""
    edges = [one.begin - measured.moment for one in activities] + [activities[-1].end - measured.moment]
    # A step lasts until the next edge, and the last one until the last.
    steps = [[*series, series[-1]] for series in values.values()]
    axes.stackplot(edges, steps, labels=list(values), colors=COLOURS, step="post", linewidth=0)
    axes.axvline(0, color="black", linestyle="--", linewidth=1.3)
    axes.margins(x=0)


def _name(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
