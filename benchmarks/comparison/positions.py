"""Where the primary is and what each replica has replayed, sampled while a load runs."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from typing import Any, LiteralString, Self

import psycopg

from django_pglb.core.lsn import normalise, parse_lsn
from django_pglb.testing import Cluster, PostgresHost

from ..background import Background

INTERVAL_SECONDS = 0.01
WRITTEN: LiteralString = "SELECT pg_current_wal_insert_lsn()::text"
REPLAYED: LiteralString = "SELECT pg_last_wal_replay_lsn()::text"


class Track:
    """The positions of one host. `asked[i]` and `answered[i]` are the moments between which `lsns[i]` was true."""

    def __init__(self, host: PostgresHost, question: LiteralString) -> None:
        self.asked: list[float] = []
        self.answered: list[float] = []
        self.lsns: list[int] = []
        self._question = question
        # Not to the site's database, whose transactions are counted.
        self.connection = host.connect()

    def sample(self) -> None:
        asked = time.monotonic()
        row: Any = self.connection.execute(self._question).fetchone()
        self.lsns.append(normalise(parse_lsn(row[0])))
        self.asked.append(asked)
        self.answered.append(time.monotonic())

    def after(self, moment: float) -> float:
        """Return the first position that was asked for after `moment`, infinity if none was."""
        index = bisect_left(self.asked, moment)
        return self.lsns[index] if index < len(self.lsns) else inf

    def before(self, moment: float) -> int:
        """Return the last position that was known before `moment`, 0 if none was."""
        index = bisect_left(self.answered, moment)
        return self.lsns[index - 1] if index else 0


class Positions(Background):
    """Samples the positions of all hosts, some hundred microseconds of work every `INTERVAL_SECONDS`, from `with` to its end."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("positions")
        self._cluster = cluster

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.primary = self._open(stack, self._cluster.primary, WRITTEN)
            self.replicas = [self._open(stack, replica, REPLAYED) for replica in self._cluster.replicas]
            self._stack = stack.pop_all()
        return super().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._stack.close()

    def written(self, moment: float) -> float:
        """Return a position that is not before anything committed at `moment`."""
        return self.primary.after(moment)

    def replayed(self, moment: float) -> int:
        """Return a position that some replica certainly had at `moment`."""
        return max(replica.before(moment) for replica in self.replicas)

    def _open(self, stack: ExitStack, host: PostgresHost, question: LiteralString) -> Track:
        track = Track(host, question)
        stack.enter_context(track.connection)
        return track

    def work(self) -> None:
        tracks: Sequence[Track] = (self.primary, *self.replicas)
        while not self.stopping.wait(INTERVAL_SECONDS):
            for track in tracks:
                try:
                    track.sample()
                except psycopg.errors.QueryCanceled:  # by what a replica replays; the next sample will do
                    continue
