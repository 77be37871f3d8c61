"""Targets, checkers and hosts that never answer, for tests of the checker."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from django_pglb.core.config import ClusterConfig, ReplicaConfig
from django_pglb.core.topology import Host, HostState
from django_pglb.health.checker import Checker
from django_pglb.health.target import Target, target_from_params
from django_pglb.health.teller import THREAD_NAME as TELLER_NAME
from django_pglb.testing import PLAIN_ROLE, Cluster, PostgresHost, wait_until

PRIMARY = "primary"
# On a busy machine a healthy host may take a second to answer. Tests of the timeout say their own.
FAST = {"check_interval": 0.1, "check_timeout": 10.0}


def target_of(
    host: PostgresHost,
    *,
    user: str = PLAIN_ROLE,
    password: str | None = None,
    database: str = "postgres",
    port: int | None = None,
    **options: Any,
) -> Target:
    params = {"host": host.host, "port": port or host.port, "dbname": database, "user": user, "password": password}
    return target_from_params(host.name, params, is_primary=host.name == PRIMARY, **options)


def targets_of(cluster: Cluster, **options: Any) -> list[Target]:
    return [target_of(host, **options) for host in cluster.hosts]


def target_at(alias: str, host: str, port: int, *, is_mirror: bool = False, **params: Any) -> Target:
    known = {"host": host, "port": port, "dbname": "x", "user": "x", **params}
    return target_from_params(alias, known, is_primary=alias in {PRIMARY, "primary_too"}, is_mirror=is_mirror)


def config_for(targets: list[Target], **changes: Any) -> ClusterConfig:
    replicas = tuple(ReplicaConfig(alias=target.alias) for target in targets if not target.is_primary)
    return ClusterConfig(primary=next(target.alias for target in targets if target.is_primary), replicas=replicas, **{**FAST, **changes})


@contextlib.contextmanager
def checking(
    targets: list[Target], *, resolve: Any = None, on_change: Any = None, on_offline: Any = None, clock: Any = None, **changes: Any
) -> Iterator[Checker]:
    """A checker that runs, and is stopped at the end."""
    config = config_for(targets, **changes)
    arguments = {"resolve": resolve, "on_change": on_change, "on_offline": on_offline, "clock": clock}
    given = {name: argument for name, argument in arguments.items() if argument is not None}
    checker = Checker({config.primary: targets}, {config.primary: config}, **given)
    others = set(threading.enumerate())
    checker.ensure_running()
    try:
        yield checker
    finally:
        checker.stop()
        for thread in set(threading.enumerate()) - others:
            if thread.name == TELLER_NAME:
                thread.join(60)  # what it still has to tell must be in this test's log, and in no other's


def host_of(checker: Checker, alias: str) -> Host:
    return checker.topology(PRIMARY).by_alias[alias]


def wait_for_states(checker: Checker, timeout: float = 60, **wanted: HostState) -> None:
    wait_until(
        lambda: {alias: host_of(checker, alias).state for alias in wanted} == wanted, timeout=timeout, what=f"the checker to see {wanted}"
    )


def wait_until_online(checker: Checker) -> None:
    hosts = checker.topology(PRIMARY).by_alias
    wait_for_states(checker, **dict.fromkeys(hosts, HostState.ONLINE))


@contextlib.contextmanager
def deaf_port(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server((host, port), backlog=200) as server:
        yield server.getsockname()[1]


class SlowPath:
    """A way to a server on which every packet from there takes `seconds` longer. Not to be used for more than a few connections."""

    def __init__(self, port: int, own_port: int) -> None:
        self.seconds = 0.0
        self._target = port
        self._server = socket.create_server(("127.0.0.1", own_port))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = [self._server]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        # Shut down, not only closed: threads wait for them. Nobody may be let in meanwhile.
        self._shut_down(self._server)
        self._threads[0].join()
        for each in self._sockets:
            self._shut_down(each)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    @staticmethod
    def _shut_down(each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for source, sink, is_slow in ((near, far, False), (far, near, True)):
                    thread = threading.Thread(target=self._forward, args=(source, sink, is_slow))
                    thread.start()
                    self._threads.append(thread)

    def _asked(self, data: bytes) -> bytes:
        return data

    def _forward(self, source: socket.socket, sink: socket.socket, is_slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.seconds if is_slow else 0)
                sink.sendall(data if is_slow else self._asked(data))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class RenamingPath(SlowPath):
    """A way to a server that asks for another of its databases, as a pooler may be set up to. The names must be of the same length."""

    def __init__(self, port: int, asked: str, meant: str) -> None:
        assert len(asked) == len(meant)
        self._names = [b"\0database\0%s\0" % name.encode() for name in (asked, meant)]
        super().__init__(port, 0)

    def _asked(self, data: bytes) -> bytes:
        return data.replace(*self._names)


@contextlib.contextmanager
def slow_path(port: int, *, own_port: int = 0) -> Iterator[SlowPath]:
    with passing(SlowPath(port, own_port)) as path:
        yield path


@contextlib.contextmanager
def passing(path: SlowPath) -> Iterator[SlowPath]:
    """Let `path` be passed until the end."""
    try:
        yield path
    finally:
        path.close()


@contextlib.contextmanager
def hanging_resolver() -> Iterator[Any]:
    """A resolver that never answers for names that begin with "hang", until the end."""
    over = threading.Event()

    def resolve(host: str, *arguments: Any) -> list[Any]:
        if str(host).startswith("hang"):
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "gave up")
        return socket.getaddrinfo(host, *arguments)

    try:
        yield resolve
    finally:
        over.set()


def lines_about(caplog: pytest.LogCaptureFixture, alias: str) -> list[str]:
    records = [record for record in caplog.records if record.name == "django_pglb.health"]
    return [f"{record.levelname} {record.getMessage()}" for record in records if record.getMessage().startswith(f"{alias} ")]


def watch_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="django_pglb.health")


def forget_log(caplog: pytest.LogCaptureFixture, checker: Checker) -> None:
    """Forget what was logged until every host was online. A thread of its own tells it, hence later than the topology shows it."""

    def is_told() -> bool:
        return all(any(" is online, " in line for line in lines_about(caplog, alias)) for alias in checker.topology(PRIMARY).by_alias)

    wait_until(is_told, timeout=20, what="the log to tell that the hosts are online")
    caplog.clear()
