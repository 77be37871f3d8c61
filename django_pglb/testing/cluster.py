"""A real PostgreSQL cluster on this machine: one primary, streaming replicas and Redis."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from . import guardian
from .account import Account, make_folder, server_account
from .binaries import PostgresBinaries, find_postgres, find_redis, readable_postgres, readable_redis, redis_names
from .errors import ClusterError, PortTaken
from .passwords import PASSWORD, password_file
from .postgres import PROGRAMS, PostgresHost, Replica
from .redis import RedisServer
from .server import Server

# A role that may log in and nothing more, there from the start.
PLAIN_ROLE = "plain"

START_ATTEMPTS = 3


class Cluster:
    """A primary, `replicas` streaming replicas and, if `redis`, a Redis server, all on 127.0.0.1 and free ports.

    Use it as a context manager, or call `start()` and `stop()`. `settings` are PostgreSQL settings for all hosts,
    `replica_settings` for the replicas only. The servers end with this process however it ends, unless it forked:
    a child of it may come and go, and cannot stop the cluster.
    Other accounts of this machine are asked for a password that they do not know. Clients in this process and its children need not give
    it: libpq finds it where `PGPASSFILE` points while a cluster runs.
    Not thread-safe as a whole; different hosts may be handled from different threads.
    """

    def __init__(
        self,
        *,
        replicas: int = 2,
        redis: bool = True,
        settings: Mapping[str, str] | None = None,
        replica_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._replica_count = replicas
        self._wants_redis = redis
        self._settings = dict(settings or {})
        self._replica_settings = {**self._settings, **(replica_settings or {})}
        self._folder: Path | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0
        self._programs: tuple[str, ...] = PROGRAMS
        self._primary: PostgresHost | None = None
        self._redis: RedisServer | None = None
        self.replicas: list[Replica] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def primary(self) -> PostgresHost:
        """The host that the replicas were made from, also after one of them was promoted."""
        if self._primary is None:
            raise ClusterError("the cluster has not been started")
        return self._primary

    @property
    def redis(self) -> RedisServer:
        """The Redis server."""
        if self._redis is None:
            raise ClusterError("the cluster has not been started, or was made with redis=False")
        return self._redis

    @property
    def hosts(self) -> list[PostgresHost]:
        """The primary and the replicas."""
        return [self.primary, *self.replicas]

    @property
    def folder(self) -> Path:
        """The temporary folder that holds everything, each host's log among it; removed by `stop()`."""
        if self._folder is None:
            raise ClusterError("the cluster has not been started")
        return self._folder

    def start(self) -> None:
        """Start everything; returns, in a second or two, when every host answers and every replica has caught up."""
        if self._folder is not None:
            raise ClusterError("the cluster is running already")
        for attempts_left in reversed(range(START_ATTEMPTS)):
            try:
                self._start_once()
            except PortTaken:
                # Between the choice of a port and its use somebody else may have taken it.
                self.stop()
                if not attempts_left:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End every server and remove every trace. Harmless when nothing runs, and in a forked child of the owner."""
        if self._folder is None or os.getpid() != self._owner_pid:
            return
        guardian.end_processes(self._folder, self._programs)
        for server in self._servers():
            server.kill()
        password_file.leave_out(self._folder)
        guardian.remove_folder(self._folder)
        self._dismiss_guardian()
        self._folder = self._primary = self._redis = None
        self.replicas = []

    def heal(self) -> None:
        """Bring every server back to where `start()` left it: running, thawed, replaying without delay, replicas following the primary.

        Data, roles, databases and settings that need a restart stay as they are. Quick when nothing is wrong.
        """
        for server in self._servers():
            server.thaw()
        for server in (self.primary, *([self._redis] if self._redis else [])):
            server.start()
        self.primary.reset_system()
        with ThreadPoolExecutor(max_workers=max(1, len(self.replicas))) as pool:
            list(pool.map(Replica.heal, self.replicas))

    def wait_until_replicas_caught_up(self, timeout: float = 30.0) -> None:
        """Wait until every replica has replayed everything that the primary has written so far."""
        lsn = self.primary.write_lsn
        for replica in self.replicas:
            replica.wait_for_lsn(lsn, timeout)

    def create_role(self, name: str, *, monitor: bool = False) -> None:
        """Make sure that there is a role `name` that may log in, with `pg_read_all_stats` or without, and nothing more.

        Its password is that of the hosts.
        """
        identifier = sql.Identifier(name)
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            self.primary.ask(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(identifier, sql.Literal(PASSWORD)))
        change = sql.SQL("GRANT pg_read_all_stats TO {}" if monitor else "REVOKE pg_read_all_stats FROM {}")
        self.primary.ask(change.format(identifier))

    def create_database(self, name: str, *, owner: str = "postgres") -> None:
        """Create an empty database on the primary; the replicas get it by replication."""
        self.primary.ask(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)))

    def _start_once(self) -> None:
        binaries = find_postgres()
        redis_program = find_redis() if self._wants_redis else None
        account = server_account()
        self._folder = make_folder(account)
        self._owner_pid = os.getpid()
        self._programs = (*PROGRAMS, *(redis_names(redis_program) if redis_program else ()))
        self._hire_guardian()
        if redis_program:
            self._launch_redis(redis_program, account)
        self._make_hosts(readable_postgres(binaries, account, self._folder), account)
        for server in self._servers():
            server.wait_until_ready()
        self.create_role(PLAIN_ROLE)
        self.wait_until_replicas_caught_up()

    def _launch_redis(self, program: Path, account: Account) -> None:
        self._redis = RedisServer(home=self.folder / "redis", program=readable_redis(program, account, self.folder), account=account)
        self._redis.launch()

    def _make_hosts(self, binaries: PostgresBinaries, account: Account) -> None:
        self._primary = PostgresHost(
            name="primary", home=self.folder / "primary", binaries=binaries, account=account, settings=self._settings
        )
        self._primary.create()
        names = [f"replica{number}" for number in range(1, self._replica_count + 1)]
        self.replicas = [
            Replica(
                primary=self._primary,
                name=name,
                home=self.folder / name,
                binaries=binaries,
                account=account,
                settings=self._replica_settings,
            )
            for name in names
        ]
        for replica in self.replicas:
            replica.copy_from(self._primary)
        password_file.include(self.folder, [host.port for host in self.hosts])
        for host in self.hosts:
            host.launch()

    def _servers(self) -> list[Server]:
        return [server for server in (self._primary, *self.replicas, self._redis) if server is not None]

    def _hire_guardian(self) -> None:
        """Start, before any server, the process that outlives this one."""
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self.folder), str(os.getpid()), *self._programs],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _dismiss_guardian(self) -> None:
        if self._guardian is None or self._guardian.stdin is None:
            return
        # A word and not only the end of the pipe, which a forked child may hold open.
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.write(b"\n")
            self._guardian.stdin.close()
        self._guardian.wait()
        self._guardian = None
