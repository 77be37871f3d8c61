"""One run: a scenario on a site that was just started, from the first sign-in to the verdict."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.served.site import GunicornSite

from .checker import published_tokens
from .faults import Fault
from .history import HistoryFile, read_history
from .leaks import find_leaks, find_remains, holdings
from .result import Result
from .scenarios import Scenario
from .site import ConsistencySite
from .workers import Workers
from .workload import Workload
from .world import OURS, World

# Every thread has met every host.
FIRST_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, and where its history goes."""

    scenario: Scenario
    mode: str
    seconds: float
    seed: int
    folder: Path

    def run(self, world: World) -> Result:
        """Run it. What is worth keeping of a failed run stays in the folder."""
        world.reset(self.scenario.lag_seconds)
        fault = self.scenario.make(world, random.Random(self.seed))
        options = json.dumps(self.scenario.options)
        environment = world.environment(self._settings, CONSISTENCY_MODE=self.mode, CONSISTENCY_OPTIONS=options)
        with ConsistencySite(world, self._settings, environment) as site:
            result = self._run_on(site, world, fault, environment)
            log = site.read_log()
        result.complaints += find_remains(world)
        if result.has_failed:
            (self.folder / f"{self._name}.log").write_text(log)
            (self.folder / f"{self._name}.txt").write_text("\n".join(result.describe()))
        else:
            self._path.unlink()
        return result

    @property
    def _settings(self) -> str:
        return self.scenario.control.settings if self.scenario.control else OURS

    @property
    def _name(self) -> str:
        return f"{self.scenario.name}-{self.mode}-{self.seed}"

    @property
    def _path(self) -> Path:
        return self.folder / f"{self._name}.jsonl"

    def _run_on(self, site: GunicornSite, world: World, fault: Fault, environment: Mapping[str, str]) -> Result:
        with HistoryFile(self._path) as history, self._workers(world, environment) as workers:
            history.note(scenario=self.scenario.name, mode=self.mode, seed=self.seed, seconds=self.seconds)
            levels = self.scenario.task_levels
            load = Workload(site.port, history, seed=self.seed, read_kinds=self.scenario.read_kinds, task_levels=levels)
            with load:
                time.sleep(FIRST_SECONDS)
                before = holdings(site)
                self.scenario.strike(fault, self.seconds)
            history.note(fault=fault.name, started=fault.started, ended=fault.ended, evidence=fault.evidence, story=fault.story)
            history.flush()
            operations = read_history(self._path)
            runs = workers.drain(published_tokens(operations)) if workers else []
            history.note(tasks=[str(run) for run in runs])
        leaks = find_leaks(site, world, before)
        return Result(
            title=self.scenario.title,
            mode=self.mode,
            seed=self.seed,
            history=operations,
            final=world.final_state(),
            fault=fault,
            leaks=[*leaks, *load.failures],
            runs=runs,
            least_on_replicas=self.scenario.least_on_replicas,
            must_find=self.scenario.control.must_find if self.scenario.control else None,
        )

    @contextmanager
    def _workers(self, world: World, environment: Mapping[str, str]) -> Iterator[Workers | None]:
        """Give the workers of the site's tasks, where the scenario has some."""
        if not self.scenario.task_levels:
            yield None
            return
        with Workers(environment) as workers:
            try:
                world.workers = workers
                yield workers
            finally:
                world.workers = None
