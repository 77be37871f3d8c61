"""How the benchmarks judge what clients saw."""

from __future__ import annotations

from benchmarks.comparison.bounds import honest_share, monotonic_share
from benchmarks.comparison.figures import Window, judge
from benchmarks.comparison.request import Request


def write(started: float, ended: float, value: int, *, user: int = 1, status: int = 200) -> Request:
    return Request(user, True, started, ended, status, value)


def read(started: float, ended: float, value: int, *, user: int = 1, status: int = 200) -> Request:
    return Request(user, False, started, ended, status, value)


class Positions:
    """A primary whose position is the time, and one replica that is `lag` behind it."""

    def __init__(self, lag: float) -> None:
        self._lag = lag

    def written(self, moment: float) -> float:
        return moment

    def replayed(self, moment: float) -> float:
        return moment - self._lag


def test_read_must_show_its_users_writes_that_were_acknowledged_before_it_began():
    """Writes of others, writes that failed, and those acknowledged during the read do not count; the warm-up's do."""
    history = [
        write(0, 1, 5),
        write(0, 1, 9, user=2),
        write(1, 2, 8, status=500),
        write(2, 11.5, 6),
        read(11, 12, 5),
        read(13, 14, 5),
        read(13, 14, 6),
    ]

    assert judge(Window(10, 20), history).missed == 1


def test_read_must_not_show_less_than_an_earlier_read_of_its_user():
    """What ended only after a read began does not count for it; the highest counts, not the latest."""
    history = [read(10, 13, 7), read(12, 14, 6), read(14.5, 15, 6), read(14.5, 15, 6, user=2)]

    assert judge(Window(10, 20), history).back == 1


def test_bound_counts_reads_that_a_replica_could_answer():
    """A user who has not written may read from any replica, one who has when it has got there."""
    reads = [read(11, 12, 1), read(16, 17, 1), read(11, 12, 0, user=2)]
    history = [write(9, 10, 1), *reads]

    assert honest_share(reads, history, Positions(lag=5)) == 2 / 3


def test_monotonic_bound_keeps_readers_with_the_primary_until_a_replica_has_what_they_saw():
    """A read that the primary must answer makes the next one wait for the replica anew."""
    reads = [read(11, 12, 1), read(15.5, 15.6, 1), read(21, 22, 1)]
    history = [write(9, 10, 1), *reads]

    assert honest_share(reads, history, Positions(lag=5)) == 2 / 3
    assert monotonic_share(reads, history, Positions(lag=5)) == 1 / 3
