"""What became of the tests of a run, and how it differs from another one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

FAILED = frozenset({"error", "failed", "failed in a subtest", "unexpected success"})


class Outcome(NamedTuple):
    """What became of each test: id -> outcomes, more than one if the test failed and its tear-down too."""

    tests: dict[str, tuple[str, ...]]

    @property
    def failed(self) -> list[str]:
        return sorted(test for test, found in self.tests.items() if FAILED & set(found))

    def differences(self, reference: Outcome) -> dict[str, str]:
        """Return the tests that ended otherwise than in `reference`, or were not run at all, and how."""
        ids = sorted({*self.tests, *reference.tests})
        return {test: f"{reference._said(test)} -> {self._said(test)}" for test in ids if self._said(test) != reference._said(test)}

    def _said(self, test: str) -> str:
        return " and ".join(self.tests.get(test, ("not run",)))


def read_outcome(path: Path) -> Outcome:
    return Outcome({test: tuple(found) for test, found in json.loads(path.read_text()).items()})


def tests_on_mirror(path: Path, mirror: str) -> Counter[str]:
    """Return for each suite how many of its tests had a read answered by `mirror` with the reason `replica`."""
    counts: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if any(alias == mirror and reason == "replica" for alias, reason, _ in entry["decisions"]):
            counts[entry["test"].split(".")[0]] += 1
    return counts
