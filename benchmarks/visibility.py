"""How often a primary shows less than a replica has shown just before: `python -m benchmarks.visibility [seconds]` prints a table.

A commit is visible on a standby when it is replayed, and on the primary only after its wait for synchronous standbys has ended.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from django_pglb.testing import Cluster

WRITERS = 4
# Of a stalled standby everything is told soon, and each pair of reads waits for nothing.
STALLED_SECONDS = 2.0
# The primary is read at once, or so much later: sooner than anybody asks for the next page.
PAUSES = (0.0, 0.05)
COUNTS = "SELECT array_agg(count ORDER BY id) FROM counter"


class Case(NamedTuple):
    """Which standbys the primary waits for, and until when."""

    name: str
    standbys: str = ""
    commit: str = "on"
    is_stalled: bool = False


CASES = (
    Case("asynchronous"),
    Case("one synchronous standby", "FIRST 1 (replica1)"),
    Case("any one of two", "ANY 1 (replica1, replica2)"),
    Case("one, `synchronous_commit = remote_apply`", "FIRST 1 (replica1)", "remote_apply"),
    Case("one that stalls, read from another", "FIRST 1 (replica1)", is_stalled=True),
)


def main(seconds: float) -> None:
    """Measure each case for so many seconds, and print the rows of a table."""
    print("| standbys that a commit waits for | pairs of reads, the second at once | went back | the second 50 ms later | went back |")
    print("|---|---|---|---|---|")
    with Cluster(replicas=2, redis=False) as cluster:
        cluster.primary.ask("CREATE TABLE counter (id int PRIMARY KEY, count bigint) WITH (fillfactor = 10)")
        cluster.primary.ask("INSERT INTO counter SELECT id, 0 FROM generate_series(1, %s) id", (WRITERS,))
        cluster.wait_until_replicas_caught_up()
        for case in CASES:
            cells = [f"{pairs:,} | {back:,} ({back / pairs:.2%})" for pairs, back in measure(cluster, case, seconds)]
            print(f"| {case.name} | {' | '.join(cells)} |", flush=True)


def measure(cluster: Cluster, case: Case, seconds: float) -> list[tuple[int, int]]:
    """Return how many pairs of reads, of a replica and then of the primary, there were, and how many of them went back, by pause."""
    primary, (first, second) = cluster.primary, cluster.replicas
    primary.alter_system("synchronous_commit", case.commit)
    primary.alter_system("synchronous_standby_names", case.standbys)
    with writing(cluster), (second if case.is_stalled else first).connect() as replica, primary.connect() as leader:
        if case.is_stalled:
            first.freeze()
            time.sleep(0.5)  # until every writer waits for it
        try:
            seconds = min(seconds, STALLED_SECONDS) if case.is_stalled else seconds
            return [read_pairs(replica, leader, seconds, pause) for pause in PAUSES]
        finally:
            first.thaw()
            primary.reset_system()


def read_pairs(replica: Any, leader: Any, seconds: float, pause: float) -> tuple[int, int]:
    """Read from a replica and then from the primary, again and again."""
    pairs = back = 0
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        (before,) = replica.execute(COUNTS).fetchone()
        if pause:
            time.sleep(pause)
        (after,) = leader.execute(COUNTS).fetchone()
        pairs += 1
        back += any(now < seen for now, seen in zip(after, before, strict=True))
    return pairs, back


@contextlib.contextmanager
def writing(cluster: Cluster) -> Iterator[None]:
    """Have every writer count its own row up in short transactions."""
    over = threading.Event()

    def write(number: int) -> None:
        with cluster.primary.connect() as connection:
            while not over.is_set():
                connection.execute("UPDATE counter SET count = count + 1 WHERE id = %s", (number,))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, WRITERS + 1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
