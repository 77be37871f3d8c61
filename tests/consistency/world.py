"""The servers, the proxies in front of them, and what can happen to them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import redis

from django_pglb.core.lsn import parse_lsn
from django_pglb.testing import Cluster, PostgresHost, Replica, wait_until
from tests.served.program import ROOT

from .checker import FinalState
from .proxy import Proxy, ProxyLoop
from .workers import Workers

OURS = "tests.consistency.settings"
DATABASE = ROLE = "guestbook"
# Faults are meant to last seconds; a server on a busy machine may take its time to come back.
PATIENCE_SECONDS = 60.0
# https://redis.io/docs/latest/commands/pttl/
LASTS_FOR_EVER = -1

# Only clients' connections, and only the site's.
SITE_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'"
REPLY_AGE = "SELECT extract(epoch FROM clock_timestamp() - reply_time)::float FROM pg_stat_replication WHERE application_name = %s"
MESSAGE_AGE = "SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float FROM pg_stat_wal_receiver"
RECEIVED = "SELECT pg_last_wal_receive_lsn()::text"
TOKENS = """
    SELECT token, substr(username, 5)::int, count(*)::int
    FROM consistency_token JOIN auth_user ON auth_user.id = user_id GROUP BY 1, 2
"""
REGISTERS = "SELECT substr(username, 5)::int, value FROM served_register JOIN auth_user ON auth_user.id = user_id"


class World:
    """A primary, two replicas and Redis, each PostgreSQL host behind a proxy. A context manager.

    `primary` is whoever takes writes now. Not thread-safe.
    """

    def __init__(self) -> None:
        self.cluster = Cluster(replicas=2, redis=True)
        self.proxies: dict[str, Proxy] = {}
        self._lasting_keys: dict[bytes, bytes] = {}
        self.workers: Workers | None = None
        """Those of the site's tasks, while a run has some."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.cluster)
            # The checker needs `pg_read_all_stats` to see a failover at once.
            self.cluster.create_role(ROLE, monitor=True)
            self.cluster.create_database(DATABASE, owner=ROLE)
            loop = stack.enter_context(ProxyLoop())
            self.proxies = {host.name: loop.proxy(host.port) for host in self.cluster.hosts}
            self.primary: PostgresHost = self.cluster.primary
            subprocess.run([sys.executable, "-m", "tests.served.prepare"], cwd=ROOT, env=self.environment(), check=True)
            self.cluster.wait_until_replicas_caught_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    # What it is

    @property
    def replicas(self) -> list[Replica]:
        """Both replicas, as they were made: the aliases `replica1` and `replica2`."""
        return self.cluster.replicas

    def proxy(self, host: PostgresHost) -> Proxy:
        return self.proxies[host.name]

    def environment(self, settings: str = OURS, **more: str) -> dict[str, str]:
        """Return the environment in which the site finds these servers."""
        ports = ",".join(str(self.proxies[host.name].port) for host in self.cluster.hosts)
        ours = {
            "CONSISTENCY_PORTS": ports,
            "CONSISTENCY_REDIS": self.cluster.redis.url,
            "CONSISTENCY_BROKER": self._broker,
            "DJANGO_SETTINGS_MODULE": settings,
        }
        return {**os.environ, **ours, **more}

    @property
    def _broker(self) -> str:
        """Where messages go: the same Redis, in another database than what is remembered for users."""
        return self.cluster.redis.url.removesuffix("/0") + "/1"

    @contextlib.contextmanager
    def redis_client(self, timeout: float = 5.0) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.cluster.redis.url, socket_timeout=timeout, socket_connect_timeout=timeout) as client:
            yield client

    # Before and after a run

    def reset(self, lag_seconds: Sequence[float]) -> None:
        """Heal everything and forget what was written: the next run begins as the first. Each replica is so far behind from now on."""
        for proxy in self.proxies.values():
            proxy.pass_on()
        self.cluster.heal()
        self.primary = self.cluster.primary
        with self.primary.connect(dbname=DATABASE) as connection:
            connection.execute("TRUNCATE consistency_token, django_session")
            connection.execute("UPDATE served_register SET value = 0")
        self.let_keys_expire()
        with self.redis_client() as client:
            for key, value in self._lasting_keys.items():
                client.setnx(key, value)
        self.cluster.wait_until_replicas_caught_up()
        self._lag_seconds = {replica.name: lag for replica, lag in zip(self.replicas, lag_seconds, strict=True)}
        for replica in self.replicas:
            self.restore_lag(replica)

    def restore_lag(self, replica: Replica) -> None:
        """Let a replica be as far behind as it normally is."""
        replica.delay_replay(self._lag_seconds[replica.name])

    def let_keys_expire(self) -> None:
        """Let the time pass for Redis until every pointer has expired. What has no expiry stays, as what a store knows of itself does."""
        with self.redis_client() as client:
            for key in client.scan_iter():
                if client.pttl(key) != LASTS_FOR_EVER:
                    client.delete(key)

    def note_lasting_keys(self) -> None:
        """Note what a store that is well keeps for ever: the next run begins with it, whatever this one does to Redis."""
        with self.redis_client() as client:
            found = {key: client.get(key) for key in client.scan_iter() if client.pttl(key) == LASTS_FOR_EVER}
        self._lasting_keys = {key: value for key, value in found.items() if value is not None}

    def final_state(self) -> FinalState:
        """Return what the primary holds now."""
        with self.primary.connect(dbname=DATABASE) as connection:
            rows = connection.execute(TOKENS).fetchall()
            registers = dict(connection.execute(REGISTERS).fetchall())
        return FinalState(
            tokens={token: count for token, _, count in rows}, users={token: user for token, user, _ in rows}, registers=registers
        )

    def site_connections(self) -> Mapping[str, int]:
        """Return how many connections of the site each running host has."""
        running = [host for host in self.cluster.hosts if host.is_running]
        return {host.name: int(host.ask(SITE_CONNECTIONS, (ROLE,))) for host in running}

    # What can happen

    def kill(self, host: PostgresHost) -> None:
        """End a host with SIGKILL; its port refuses, as a dead server's does."""
        host.kill()
        self.proxy(host).refuse()

    def revive(self, host: PostgresHost) -> None:
        """Start a host again; it may be connected to as soon as it listens, long before it serves."""
        host.launch()
        wait_until(lambda: _listens(host) or not host.is_running, timeout=PATIENCE_SECONDS, what=f"{host.name} to listen")
        self.proxy(host).pass_on()
        host.wait_until_ready()

    def fail_over(self) -> tuple[float, float]:
        """Fence the primary, promote the replica that has most and let the other follow it. Returns when there was no primary."""
        old = self.primary
        fenced_at = time.monotonic()
        self.proxy(old).refuse()
        old.stop("immediate")
        chosen, other = sorted(self.replicas, key=lambda replica: parse_lsn(replica.ask(RECEIVED)), reverse=True)
        chosen.promote()
        promoted_at = time.monotonic()
        self.primary = chosen
        other.follow(chosen)
        return fenced_at, promoted_at

    def commit_something(self) -> None:
        """Commit on the primary what nobody reads."""
        self.primary.ask("SELECT pg_logical_emit_message(true, 'consistency', 'something')")

    # What the servers say

    def started_at(self, host: PostgresHost) -> object:
        """Return when the server says that it was started."""
        return host.ask("SELECT pg_postmaster_start_time()")

    def silence_of(self, host: PostgresHost) -> float:
        """Return for how many seconds nobody who streams to `host`, or from it, has heard from it, by their own account."""
        if host is not self.primary:
            return float(self.primary.ask(REPLY_AGE, (host.name,)) or 0)
        others = [replica for replica in self.replicas if replica is not host]
        return min(float(replica.ask(MESSAGE_AGE) or 0) for replica in others)

    def written_by_clients(self, host: PostgresHost) -> int:
        """Return how many rows clients have inserted, changed and deleted on this host, replay apart, by its own counters."""
        with host.connect(dbname=DATABASE) as connection:
            row = connection.execute("SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int FROM pg_stat_user_tables").fetchone()
            return int(row[0]) if row else 0


def _listens(host: PostgresHost) -> bool:
    try:
        with socket.create_connection((host.host, host.port), timeout=1):
            return True
    except OSError:
        return False
