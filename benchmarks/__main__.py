"""Measures and writes `docs/benchmarks.md`: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import django
import psycopg

from django_pglb.testing.binaries import find_postgres

from .section import Extent, Section

# In the order of the document. Each is a module with `measure(extent) -> Section`.
PARTS = ("comparison", "costs", "growth", "relief")
DOCUMENT = Path("docs/benchmarks.md")
PREFACE = """\
# Benchmarks

What the package costs, what it saves, and how others fare.
`tox -e benchmark` measures everything again and writes this page.
Compare ratios within one run: two runs, or two machines, tell nothing about each other."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for. Returns the exit status."""
    options = parse_options(arguments)
    extent = Extent(is_short=options.short, pictures=options.output.parent)
    sections = [measure(part, extent) for part in options.part]
    text = "\n\n".join([PREFACE, origin(options), *(f"## {section.title}\n\n{section.text}" for section in sections)])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text.rstrip() + "\n")
    print(f"Written: {options.output}")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures, and writes a page about it.")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="which; default: all")
    parser.add_argument("--short", action="store_true", help="only to see that everything works: the numbers mean nothing")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help=f"the page (default: {DOCUMENT}); plots are put beside it")
    return parser.parse_args(arguments)


def measure(part: str, extent: Extent) -> Section:
    """Return the section of one part."""
    print(f"=== {part}", flush=True)
    started = time.monotonic()
    section: Section = import_module(f"benchmarks.{part}").measure(extent)
    print(f"=== {part} took {time.monotonic() - started:.0f} s", flush=True)
    return section


def origin(options: argparse.Namespace) -> str:
    """Return the machine and the versions that the numbers come from."""
    versions = (
        f"Python {platform.python_version()}, Django {django.__version__}, psycopg {psycopg.__version__},"
        f" PostgreSQL {find_postgres().major_version}"
    )
    note = "\n**A short run, to see that everything works: the numbers mean nothing.**" if options.short else ""
    return f"Measured on {os.cpu_count()} cores ({_processor()}), {_memory_gib()} GiB of memory, with {versions}.{note}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


if __name__ == "__main__":
    sys.exit(main())
