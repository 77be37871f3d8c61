"""What the servers and the sites do: transactions by the hosts' own count, CPU time by the operating system's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from django_pglb.testing import Cluster

from ..background import Background
from ..comparison.cpu import cpu_seconds
from ..comparison.transactions import COUNT
from ..servers import DATABASE

INTERVAL_SECONDS = 1.0


class Sample(NamedTuple):
    """The counts at a moment of the monotonic clock."""

    moment: float
    transactions: dict[str, int]
    """Of each host, by its name; told by backends once a second, so up to a second old."""
    cpu_seconds: dict[str, float]
    """Of each server and site with all that descends from it, by its name."""


class Activity(NamedTuple):
    """What was done between two samples."""

    begin: float
    end: float
    transactions: dict[str, float]
    """Per second, of each host."""
    cpu: dict[str, float]
    """Per cent of one core."""

    @property
    def all_transactions(self) -> float:
        return sum(self.transactions.values())


def between(first: Sample, last: Sample) -> Activity:
    """Return what was done from one sample to the other."""
    seconds = last.moment - first.moment
    return Activity(
        first.moment,
        last.moment,
        {name: (count - first.transactions[name]) / seconds for name, count in last.transactions.items()},
        {name: 100 * (used - first.cpu_seconds[name]) / seconds for name, used in last.cpu_seconds.items()},
    )


class Sampler(Background):
    """Samples once a second, into `samples`, from `with` to its end, and when it is asked to.

    It asks the hosts through connections that stay open, to a database whose transactions are not counted.
    """

    def __init__(self, cluster: Cluster, others: Mapping[str, int]) -> None:
        """`others` are further processes whose CPU time is wanted, by names."""
        super().__init__("sampler")
        self._roots = {**{host.name: host.pid for host in cluster.hosts}, **others}
        self._connections = {host.name: host.connect() for host in cluster.hosts}
        self.samples: list[Sample] = []

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        for connection in self._connections.values():
            connection.close()

    def sample(self) -> Sample:
        """Return the counts of this moment. Thread-safe."""
        moment = time.monotonic()
        cpu = {name: cpu_seconds(pid) for name, pid in self._roots.items()}
        return Sample(moment, {name: self._count(name) for name in self._connections}, cpu)

    def work(self) -> None:
        due = time.monotonic()
        while not self.stopping.wait(max(0, due - time.monotonic())):
            self.samples.append(self.sample())
            # On a machine that stalls a second is left out rather than made up for: two samples at once would tell nothing.
            due += INTERVAL_SECONDS * (1 + (time.monotonic() - due) // INTERVAL_SECONDS)

    def _count(self, name: str) -> int:
        row: Any = self._connections[name].execute(COUNT, (DATABASE,)).fetchone()
        return int(row[0])
