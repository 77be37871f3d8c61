"""Judges the engine by Django's own test suite: `python -m tests.django_suite`.

Four runs on one server, compared test by test:

- `stock`: Django's own engine, the reference.
- `engine`: our engine without `PGLB`. The same results.
- `mirrored`: app, middleware, router and `PGLB` over a mirrored replica. The same results, but for what `exclusions.py` names.
- `routed`: the same with a unit of work open around each test and the mirror allowed in it, so that reads do go through the mirror.
  The same results but for what `exclusions.py` names, and at least as many tests on the mirror as it says.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from django_pglb.testing import Cluster

from .exclusions import LEAST_TESTS_ON_MIRROR, is_excluded
from .outcome import Outcome, read_outcome, tests_on_mirror
from .source import fetch_tests
from .suite_settings import MIRROR

SUITES = (
    "backends",
    "transactions",
    "transaction_hooks",
    "multiple_database",
    "select_for_update",
    "queries",
    "prefetch_related",
    "async",
    "get_or_create",
    "basic",
    "middleware",
    "sessions_tests",
    "auth_tests",
    "admin_views",
)
RUNS = ("routed", "stock", "engine", "mirrored")
# Processes to a run, and runs at a time: while one run creates its databases the other one keeps the second core busy.
PROCESSES, RUNS_AT_A_TIME = 2, 2


class Ended(NamedTuple):
    """A run that has ended."""

    run: str
    exit_status: int
    seconds: float
    log: str


class Suite:
    """Runs of Django's suite on one server."""

    def __init__(self, *, tests: Path, port: int, folder: Path, labels: list[str]) -> None:
        self._tests = tests
        self._port = port
        self._folder = folder
        self._labels = labels

    def results(self, run: str) -> Path:
        return self._folder / f"{run}.json"

    def decisions(self, run: str) -> Path:
        return self._folder / f"{run}.decisions"

    def run(self, run: str) -> Ended:
        """Run the suites with the settings of `run`."""
        started = time.monotonic()
        command = [sys.executable, "runtests.py", "--settings", f"suite_settings.{run}", "--noinput", "--parallel", str(PROCESSES)]
        ended = subprocess.run(
            [*command, *self._labels],
            cwd=self._tests,
            env=self._environment(run),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Ended(run, ended.returncode, time.monotonic() - started, ended.stdout)

    def _environment(self, run: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PGLB_SUITE_PORT": str(self._port),
            "PGLB_SUITE_RESULTS": str(self.results(run)),
            "PGLB_SUITE_DECISIONS": str(self.decisions(run)),
        }


def main() -> int:
    """Run everything and compare. Returns the exit status."""
    options = _parser().parse_args()
    tests = fetch_tests(options.source.absolute())
    with tempfile.TemporaryDirectory(prefix="pglb-suite-") as folder, Cluster(replicas=0, redis=False) as cluster:
        suite = Suite(tests=tests, port=cluster.primary.port, folder=Path(folder), labels=options.labels)
        with ThreadPoolExecutor(RUNS_AT_A_TIME) as pool:
            ended = {entry.run: entry for entry in pool.map(suite.run, RUNS)}
        problems = [problem for run in RUNS for problem in _judge(suite, ended[run])]
        passed = sum(len(read_outcome(suite.results(run)).tests) for run in RUNS if suite.results(run).exists())
    for problem in problems:
        print(problem)
    print(f"{passed - len(problems)} passed, {len(problems)} failed")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description="Judge the engine by Django's own test suite.")
    parser.add_argument("--source", type=Path, default=Path(tempfile.gettempdir(), "django-source"), help="where to keep Django's source")
    parser.add_argument("labels", nargs="*", default=list(SUITES), help="suites or tests (default: all that are of interest)")
    return parser


def _judge(suite: Suite, ended: Ended) -> list[str]:
    """Return what is wrong with a run, and print its log if something is."""
    problems = _compare(suite, ended)
    print(f"{ended.run}: {ended.seconds:.0f} s, {_last_line(ended.log)}", flush=True)
    if problems:
        print(ended.log)
    return [f"{ended.run}: {problem}" for problem in problems]


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if line.startswith(("OK", "FAILED"))), "did not finish")


def _compare(suite: Suite, ended: Ended) -> list[str]:
    run = ended.run
    if not suite.results(run).exists() or not suite.results("stock").exists():
        return [f"did not finish (exit status {ended.exit_status})"]
    outcome, reference = read_outcome(suite.results(run)), read_outcome(suite.results("stock"))
    if run == "stock":
        return [f"{test} fails with Django's own engine" for test in outcome.failed]
    differences = outcome.differences(reference)
    wrong = [f"{test}: {what}" for test, what in differences.items() if not is_excluded(test, run)]
    excluded = sum(is_excluded(test, run) for test in reference.tests)
    if excluded:
        print(f"{run}: {excluded} of {len(reference.tests)} tests are excluded, see exclusions.py")
    return [*wrong, *(_vacuous(suite, outcome) if run == "routed" else ())]


def _vacuous(suite: Suite, outcome: Outcome) -> list[str]:
    """Return which suites did not read through the mirror as often as they should."""
    counts = tests_on_mirror(suite.decisions("routed"), MIRROR)
    print(f"routed: {counts.total()} tests read through the mirror: {dict(sorted(counts.items()))}")
    run = {test.split(".")[0] for test in outcome.tests}
    return [
        f"only {counts[name]} tests of {name} read through the mirror, expected at least {least}"
        for name, least in LEAST_TESTS_ON_MIRROR.items()
        if name in run and counts[name] < least
    ]


if __name__ == "__main__":
    sys.exit(main())
