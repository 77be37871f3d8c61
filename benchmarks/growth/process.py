"""What one process costs beside a given number of replicas: `python -m benchmarks.growth.process REPLICAS [--short]` prints it as JSON."""

from __future__ import annotations

import argparse
import gc
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean, median
from time import perf_counter_ns
from typing import Any, NamedTuple

from django.db import connections

from django_pglb import connection_for_read, export_pointer, routing_session
from django_pglb.health import question
from django_pglb.health.target import APPLICATION_NAME
from django_pglb.placement import route_by_lease, route_read
from django_pglb.runtime import get_runtime
from django_pglb.testing import Cluster, PostgresHost, wait_until

from .footprint import private_kib, processor_seconds
from .setup import DATABASE, PRIMARY, set_up
from .store_cost import measure_store
from .trial import Trial

# Commits a little each tenth of a second, as the primary of a site does; nobody has to wait for it.
WRITER = b"""
DO $$ BEGIN
  LOOP
    PERFORM pg_logical_emit_message(true, 'growth', repeat('x', 1000));
    COMMIT;
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$
"""
PROBES = "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query LIKE '%%pg_is_wal_replay_paused%%'"
CHECKERS = "SELECT pid FROM pg_stat_activity WHERE application_name = %s LIMIT 1"


class Effort(NamedTuple):
    """How much is measured."""

    watch_seconds: float
    rounds: int
    deaths: int


FULL = Effort(watch_seconds=20, rounds=5000, deaths=5)
SHORT = Effort(watch_seconds=1.5, rounds=200, deaths=1)


def measure(cluster: Cluster, effort: Effort) -> Trial:
    """Return what this process, which has done nothing yet, costs beside the replicas of `cluster`."""
    cluster.create_database(DATABASE)
    cluster.primary.ask("CREATE EXTENSION pg_stat_statements")
    set_up(cluster)
    with connections[PRIMARY].cursor() as cursor:
        cursor.execute("SELECT 1")
    runtime = get_runtime()
    cluster.wait_until_replicas_caught_up()
    with writing(cluster.primary):
        before = owned_kib()
        runtime.checker.ensure_running()
        wait_until_all_online(len(cluster.replicas))
        checked = watch(cluster, effort.watch_seconds)
        with_checker = owned_kib()
        for replica in cluster.replicas:
            connections[replica.name].ensure_connection()
        with_connections = owned_kib()
        hot_probe_us = probe_hotly(cluster.replicas[0], effort.rounds)
        decisions = time_decisions(cluster, effort.rounds)
        deaths = {during: seconds_to_leave(cluster, during, effort.deaths) for during in (pause, read)}
    return Trial(
        replicas=len(cluster.replicas),
        **decisions,
        **checked,
        hot_probe_us=hot_probe_us,
        checker_kib=with_checker - before,
        connections_kib=with_connections - with_checker,
        left_by_look_seconds=deaths[pause],
        left_by_read_seconds=deaths[read],
        default_max_connections=int(cluster.primary.ask("SELECT boot_val FROM pg_settings WHERE name = 'max_connections'")),
        store=measure_store(cluster.redis.url, effort.rounds),
    )


def owned_kib() -> int:
    gc.collect()
    return private_kib()


@contextmanager
def writing(primary: PostgresHost) -> Iterator[None]:
    """Let the primary write to its log while the block runs, without any work in this process."""
    connection = primary.connect()
    connection.pgconn.send_query(WRITER)
    try:
        yield
    finally:
        primary.ask("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.close()


def wait_until_all_online(count: int) -> None:
    wait_until(lambda: len(get_runtime().topology(PRIMARY).online) == count, timeout=60, what="the checker to see every replica online")


class Seen(NamedTuple):
    """What a server has spent on the checker of this process so far."""

    at: float
    probes: int
    seconds: float


def watch(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """Return what the checker costs here and there while this process does nothing else for so many seconds."""
    pids = [host.ask(CHECKERS, (APPLICATION_NAME,)) for host in cluster.hosts]
    before = [seen(host, pid) for host, pid in zip(cluster.hosts, pids, strict=True)]
    used = time.process_time()
    time.sleep(seconds)
    used = time.process_time() - used
    after = [seen(host, pid) for host, pid in zip(cluster.hosts, pids, strict=True)]
    spent = [Seen._make(new - old for new, old in zip(*pair, strict=True)) for pair in zip(after, before, strict=True)]
    return {
        "checker_ms_per_second": used / seconds * 1000,
        "probes_per_second": [each.probes / each.at for each in spent],
        "probe_us": sum(each.seconds for each in spent) / sum(each.probes for each in spent) * 1e6,
        "checker_backend_kib": mean(private_kib(pid) for pid in pids),
    }


def seen(host: PostgresHost, pid: int) -> Seen:
    return Seen(time.monotonic(), host.ask(PROBES), processor_seconds(pid))


def probe_hotly(host: PostgresHost, rounds: int) -> float:
    """Return what a probe costs the server, in microseconds of its processor, when it is asked again and again."""
    with host.connect() as connection:
        pid = connection.info.backend_pid
        connection.execute(question.FULL)
        before = processor_seconds(pid)
        for _ in range(rounds):
            connection.execute(question.FULL)
        return (processor_seconds(pid) - before) / rounds * 1e6


def time_decisions(cluster: Cluster, rounds: int) -> dict[str, Any]:
    """Return how long the router's question takes: the first of a unit of work, for whom nothing and something binds, and later ones."""
    pointer = written_pointer(cluster)
    first_unbound, later = decide(rounds, None)
    first_bound, _ = decide(rounds, pointer)
    return {"first_unbound_us": first_unbound, "first_bound_us": first_bound, "later_us": later}


def written_pointer(cluster: Cluster) -> str:
    """Return a pointer that every replica is seen to have reached."""
    with routing_session(), connections[PRIMARY].cursor() as cursor:
        cursor.execute("SELECT pg_logical_emit_message(true, 'growth', 'x')")
        pointer = export_pointer()
    written = cluster.primary.write_lsn
    wait_until(lambda: least_replayed() >= written, timeout=60, what="the checker to see every replica there")
    return pointer


def least_replayed() -> int:
    return min(host.replay_lsn or 0 for host in get_runtime().topology(PRIMARY).replicas)


def decide(rounds: int, pointer: str | None) -> tuple[float, float]:
    """Return the median of the first decision of a unit of work, and of the second."""
    firsts, seconds = [], []
    for _ in range(rounds):
        with routing_session(pointer=pointer):
            started = perf_counter_ns()
            _ = route_by_lease(PRIMARY) or route_read(PRIMARY)
            decided = perf_counter_ns()
            _ = route_by_lease(PRIMARY) or route_read(PRIMARY)
            seconds.append(perf_counter_ns() - decided)
            firsts.append(decided - started)
    return median(firsts) / 1000, median(seconds) / 1000


def seconds_to_leave(cluster: Cluster, during: Callable[[], None], deaths: int) -> list[float]:
    """Return how long a replica that was killed stayed in the rotation, several times, while `during` was done again and again."""
    replica, found = cluster.replicas[-1], []
    runtime = get_runtime()
    for _ in range(deaths):
        # At any moment between two looks.
        time.sleep(random.uniform(0, runtime.config.clusters[PRIMARY].check_interval))
        killer = threading.Thread(target=replica.kill)
        started = time.monotonic()
        killer.start()
        while runtime.topology(PRIMARY).by_alias[replica.name].is_online:
            during()
        found.append(time.monotonic() - started)
        killer.join()
        replica.start()
        wait_until_all_online(len(cluster.replicas))
    return found


def pause() -> None:
    time.sleep(0.0005)


def read() -> None:
    with routing_session(), connection_for_read().cursor() as cursor:
        cursor.execute("SELECT 1")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("replicas", type=int)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    with Cluster(replicas=options.replicas) as cluster:
        trial = measure(cluster, SHORT if options.short else FULL)
        get_runtime().close()
        connections.close_all()
    print(json.dumps(trial))


if __name__ == "__main__":
    main()
