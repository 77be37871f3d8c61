"""Runs the micro cases, each contender in a process of its own, and reads what they have measured."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .environment import Servers
from .servers import run_child

HERE = Path(__file__).parent

# Table, row, column -> the median in microseconds, or a count, in the order in which they were measured.
Cells = dict[str, dict[str, dict[str, float]]]

ROUTING, EVERYTHING = ("test_routing.py",), tuple(path.name for path in sorted(HERE.glob("test_*.py")))
CASES = {
    "pglb": EVERYTHING,
    "pglb_cookie": ("test_middleware.py", "test_store.py"),
    "multidb": ROUTING,
    "replicated": ROUTING,
}
FULL, SHORT = ("--benchmark-max-time=0.5",), ("--benchmark-max-time=0.01", "--benchmark-min-rounds=3")


def measure_all(servers: Servers, *, is_short: bool) -> Cells:
    """Return what all contenders' cases have measured."""
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    for contender, files in CASES.items():
        for case in _run(contender, files, servers, is_short=is_short):
            info = case["extra_info"]
            row = cells[info["table"]][info["row"]]
            # What two contenders measure alike is kept once.
            row.setdefault(info["column"], case["stats"]["median"] * 1e6)
            row.update(info.get("also", {}))
    return cells


def _run(contender: str, files: Sequence[str], servers: Servers, *, is_short: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["-c", str(HERE / "pytest.ini"), f"--benchmark-json={report}", *(SHORT if is_short else FULL)]
        run_child(contender, servers, "pytest", *options, *(str(HERE / name) for name in files), is_short=is_short)
        cases: list[dict[str, Any]] = json.loads(report.read_text())["benchmarks"]
        return cases
