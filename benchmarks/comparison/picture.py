"""The plot: how far the replicas help at each delay, and what it costs in truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .delays import Measured, Row
from .stage import MONOTONIC, OURS, PLAIN, PLAIN_AGAIN, READ_YOUR_WRITES

NAME = "benchmarks-comparison.svg"
# Okabe and Ito's colours, which people with colour blindness tell apart.
COLOURS = ("#E69F00", "#CC79A7", "#D55E00", "#56B4E9", "#0072B2", "#009E73")
MARKERS = "s^vDoP"
BOUNDS: Mapping[str, Callable[[Measured], float]] = {
    READ_YOUR_WRITES: lambda one: one.bound,
    MONOTONIC: lambda one: one.monotonic_bound,
}
DASHES = {READ_YOUR_WRITES: (0, (4, 3)), MONOTONIC: (0, (1, 2))}


def draw(delays: Mapping[float, list[Row]], folder: Path) -> None:
    """Write the plot into the folder."""
    # Slow to import, and needed here alone.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    shares, lies = figure.subplots(1, 2)
    for place, (name, measured) in enumerate(_lines(delays).items()):
        style = _style(place, is_ours=name in OURS)
        where = [list(delays).index(delay) for delay in measured]
        shares.plot(where, [100 * one.on_replicas for one in measured.values()], label=name, **style)
        lies.plot(where, [100 * one.truth.missed_share for one in measured.values()], **style)
        if name in BOUNDS:
            # Of the very same run: a quicker site writes more, and its bound is lower.
            bounds = [100 * BOUNDS[name](one) for one in measured.values()]
            shares.plot(
                where, bounds, color="black", linestyle=DASHES[name], linewidth=1.3, zorder=5, label=f"bound of {name.rpartition(' ')[2]}"
            )
    _finish(shares, delays, "GET reads answered by replicas, %")
    _finish(lies, delays, "GET reads that missed the user's own write, %")
    shares.set_ylim(0, 103)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    # The same numbers make the same file.
    with mpl.rc_context({"svg.hashsalt": NAME}):
        figure.savefig(folder / NAME, metadata={"Date": None})


def _lines(delays: Mapping[float, list[Row]]) -> dict[str, dict[float, Measured]]:
    """Return the figures, as far as there are any, of each contender that knows replicas, by delay."""
    lines: dict[str, dict[float, Measured]] = {}
    for delay, rows in delays.items():
        for name, measured in rows:
            if isinstance(measured, Measured) and name not in (PLAIN.name, PLAIN_AGAIN):
                lines.setdefault(name, {})[delay] = measured
    return lines


def _style(place: int, *, is_ours: bool) -> dict[str, Any]:
    # Later lines are drawn on earlier ones: with smaller marks, those can be seen.
    size = max(4, 10 - place)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": size,
        "linewidth": 2.2 if is_ours else 1.3,
    }


def _finish(axes: Any, delays: Mapping[float, object], title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("replay delay of both replicas")
    axes.set_xticks(range(len(delays)), [f"{delay:g} s" for delay in delays])
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
