"""A standby whose replay cancels whatever is in its way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from django_pglb.health.trouble import is_cancelled_by_replay
from django_pglb.testing import Cluster, Replica, wait_until

from .aids import checking, forget_log, host_of, lines_about, targets_of, wait_until_online, watch_log

CANCELLED = "canceling statement due to conflict with recovery"
PROBE = "pg_last_wal_receive_lsn()"


def cancelled_probes(replica: Replica) -> int:
    """Return how many probes replay has cancelled, as the server's log tells."""
    _, *cancelled = replica.read_log().split(CANCELLED)
    # The statement follows, within a line or two.
    return sum(PROBE in each[:2000].partition("ERROR:")[0] for each in cancelled)


def persistently(do: Callable[[], object]) -> None:
    """Do it until replay does not cancel it."""
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            do()
            return


@contextmanager
def storm(cluster: Cluster) -> Iterator[None]:
    """Rows that every statement's snapshot may need are removed, and catalogs locked that every statement reads."""
    over = threading.Event()

    def make() -> None:
        with cluster.primary.connect() as connection:
            while not over.is_set():
                connection.execute("UPDATE stormy SET number = number + 1")
                connection.execute("VACUUM stormy")
                connection.execute("VACUUM (FULL) stormy")

    cluster.primary.ask("CREATE TABLE stormy AS SELECT generate_series(1, 100) AS number")
    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cluster.primary.ask("DROP TABLE stormy")


def test_conflict_storm_takes_no_host_out(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Probes are cancelled, too, most of all while a backlog is replayed: that is not now, and not gone."""
    watch_log(caplog)
    replica = healed_cluster.replicas[0]
    replica.alter_system("max_standby_streaming_delay", 0)
    before = cancelled_probes(replica)

    def has_cancelled_several() -> bool:
        persistently(replica.pause_replay)
        behind = healed_cluster.primary.write_lsn + 2_000_000
        wait_until(lambda: healed_cluster.primary.write_lsn > behind, timeout=60, what="a backlog")
        persistently(replica.resume_replay)
        persistently(lambda: replica.wait_for_lsn(behind))
        return cancelled_probes(replica) >= before + 3

    with checking(targets_of(healed_cluster)[:2], check_interval=0.001, max_lag_seconds=None) as checker:
        wait_until_online(checker)
        forget_log(caplog, checker)
        with storm(healed_cluster):
            wait_until(has_cancelled_several, timeout=120, what="replay to cancel probes")
        assert host_of(checker, "replica1").is_online
    assert lines_about(caplog, "replica1") == []


def test_cancelled_connection_attempt_is_recognised_without_an_sqlstate() -> None:
    """psycopg gives none for what happens while it connects."""
    text = (
        'connection failed: connection to server at "127.0.0.1", port 1 failed: FATAL:  canceling statement due to conflict with recovery'
    )
    assert is_cancelled_by_replay(psycopg.OperationalError(text))
    assert not is_cancelled_by_replay(psycopg.OperationalError("connection failed: FATAL:  the database system is starting up"))
