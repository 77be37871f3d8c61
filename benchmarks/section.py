"""What each part of the benchmarks is asked, and what it answers: a section of `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Extent(NamedTuple):
    """How much is measured, and where plots go."""

    is_short: bool
    """Only to see that everything works: the numbers mean nothing."""
    pictures: Path
    """The folder that plots are written to; the section links to them by their names."""


class Section(NamedTuple):
    """A heading and the Markdown under it."""

    title: str
    text: str


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
