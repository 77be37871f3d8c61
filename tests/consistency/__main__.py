"""Runs the scenarios: `python -m tests.consistency --help`."""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import django
import psycopg

from django_pglb.core.config_parser import parse
from django_pglb.testing.binaries import find_postgres

from .result import Result, table
from .run import Plan
from .scenarios import SCENARIOS, Scenario
from .world import World

MODES = ("read_your_writes", "monotonic")
USUAL_SECONDS = 20.0
SHORT_SECONDS = 8.0
SHORT_RANDOM_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit status."""
    options = parse_options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="pglb-consistency-"))
    results: list[Result] = []
    try:
        with World() as world:
            # One by one, so that what has been seen is told also when the run is interrupted.
            results.extend(_run(plan, world) for plan in plans(options, folder))
    except KeyboardInterrupt:
        return 130
    finally:
        _report(results, options, folder)
    return 1 if not results or any(result.has_failed for result in results) else 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.consistency", description="Proves the promises under faults.")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, help="which; default: all")
    parser.add_argument("--seconds", type=float, help="how long each takes (default: 20, the random one 180)")
    parser.add_argument("--mode", choices=MODES, help="CONSISTENCY (default: one run in each that this version offers)")
    parser.add_argument(
        "--must-violate", action="store_true", help="succeed only if reads that missed their user's write are found in every run"
    )
    parser.add_argument("--seed", type=int, nargs="+", help="replays the random choices of a run; several: one run for each")
    parser.add_argument("--short", action="store_true", help="the strictest mode only, in less than five minutes")
    parser.add_argument("--results", type=Path, help="the file that the table goes to")
    options = parser.parse_args(arguments)
    if options.scenario is None:
        options.scenario = [name for name, scenario in SCENARIOS.items() if scenario.is_short or not options.short]
    if "control-cookie-pin" in options.scenario and not find_spec("multidb"):
        parser.error("control-cookie-pin needs django-multidb-router: install it, or choose others with --scenario")
    return options


def plans(options: argparse.Namespace, folder: Path) -> Iterator[Plan]:
    """Give the runs that the options ask for."""
    for number, mode in enumerate(_modes(options)):
        for scenario in (SCENARIOS[name] for name in options.scenario):
            # A control has a mode of its own.
            if scenario.control and number:
                continue
            for seed in options.seed or [random.randrange(1_000_000)]:
                chosen = scenario.control.mode if scenario.control else mode
                yield Plan(scenario=scenario, mode=chosen, seconds=_seconds(scenario, options), seed=seed, folder=folder)


def _seconds(scenario: Scenario, options: argparse.Namespace) -> float:
    if options.seconds:
        return float(options.seconds)
    if options.short:
        return SHORT_RANDOM_SECONDS if scenario.run_seconds else SHORT_SECONDS
    return scenario.run_seconds or USUAL_SECONDS


def _modes(options: argparse.Namespace) -> list[str]:
    if options.mode:
        return [options.mode]
    offered = [mode for mode in MODES if _is_offered(mode)]
    return offered[-1:] if options.short else offered


def _is_offered(mode: str) -> bool:
    settings = {"default": {"REPLICAS": [], "CONSISTENCY": mode}}
    _, problems = parse(settings, enabled=True, debug=False, database_aliases=["default"])
    return not problems


def _run(plan: Plan, world: World) -> Result:
    print(f"{plan.scenario.name}, {plan.mode}, seed {plan.seed}, {plan.seconds:g} s …", flush=True)
    started = time.monotonic()
    result = plan.run(world)
    print("    " + " | ".join(result.row()[3:]), flush=True)
    if result.has_failed:
        print("    " + "\n".join(result.describe()).replace("\n", "\n    "), flush=True)
    print(f"    ({time.monotonic() - started:.0f} s)", flush=True)
    return result


def _report(results: list[Result], options: argparse.Namespace, folder: Path) -> None:
    text = table(results)
    print(f"\n{text}", flush=True)
    if options.results:
        options.results.write_text(f"{_origin(options.results)}\n\n{text}")
    if any(folder.iterdir()):
        print(f"Histories and logs of what failed are in {folder}", flush=True)
    else:
        shutil.rmtree(folder)


def _origin(results: Path) -> str:
    """Return the command and the machine that the numbers come from; where the table went says nothing of either."""
    told = [word for word in sys.argv[1:] if word not in ("--results", str(results))]
    command = shlex.join(["python", "-m", "tests.consistency", *told])
    postgres = find_postgres().major_version
    versions = f"Python {platform.python_version()}, Django {django.__version__}, psycopg {psycopg.__version__}, PostgreSQL {postgres}"
    return f"Made by `{command}` on {os.cpu_count()} cores, with {versions}."


if __name__ == "__main__":
    sys.exit(main())
