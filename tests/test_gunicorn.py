"""Several processes under gunicorn: each looks at the hosts itself, and sessions hold from one to the next."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_pglb.carriers import COOKIE_NAME
from django_pglb.testing import Cluster, wait_until
from django_pglb.testing.postgres import PostgresHost

from .fix_served import ServedSite
from .served.client import Answer, Device, Wire
from .served.load import sign_in_everybody
from .served.prepare import username

WORKERS = 3
PROBERS = "SELECT client_port, pid, query_start FROM pg_stat_activity WHERE application_name = 'django-pglb-checker'"
LOGINS = 50

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="which process owns a connection is read from /proc")


class Prober:
    """A connection of some process's checker, as the host sees it."""

    def __init__(self, port: int, backend: int, asked_at: Any) -> None:
        self.port = port
        self.backend = backend
        self.asked_at = asked_at


def probers(host: PostgresHost) -> list[Prober]:
    with host.connect() as connection:
        return [Prober(*row) for row in connection.execute(PROBERS)]


def local_ports(pid: int) -> set[int]:
    """Return the local ports of the TCP connections that a process holds, the inherited ones among them."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)  # noqa: PTH115 - a socket is not a path
        except FileNotFoundError:
            continue
        inodes.update(re.findall(r"socket:\[(\d+)\]", target))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def probers_of(pid: int, host: PostgresHost, *, inherited: set[int]) -> list[Prober]:
    """Return the connections to `host` that the checker of the process `pid` has opened itself."""
    own = local_ports(pid) - inherited
    return [prober for prober in probers(host) if prober.port in own]


def wait_until_probing(site: ServedSite, pid: int, *, inherited: set[int]) -> None:
    """Wait until every host has been asked twice by the checker of the process `pid`."""
    for host in site.cluster.hosts:
        asked: set[Any] = set()

        def is_asked_again(host: PostgresHost = host, asked: set[Any] = asked) -> bool:
            asked.update(prober.asked_at for prober in probers_of(pid, host, inherited=inherited))
            return len(asked) > 1

        wait_until(is_asked_again, timeout=60, what=f"process {pid} to probe {host.name} twice")


def ports_of_master(site: ServedSite) -> set[int]:
    """Return the local ports of the master, whose own checker goes on looking at every host."""
    wait_until_probing(site, site.master_pid, inherited=set())
    return local_ports(site.master_pid)


def backends_at(ports: set[int], cluster: Cluster) -> dict[str, set[int]]:
    """Return, per host, who serves the checkers that are connected from `ports`."""
    return {host.name: {prober.backend for prober in probers(host) if prober.port in ports} for host in cluster.hosts}


@pytest.fixture
def preloaded(served_cluster: Cluster) -> Iterator[ServedSite]:
    """The site preloaded by a master whose own checker runs, with three workers of one thread."""
    with ServedSite(served_cluster, workers=WORKERS, threads=1, preload=True, application="wsgi_reading") as site:
        yield site


@on_linux
def test_each_worker_probes_although_the_masters_checker_ran_before_the_fork(preloaded: ServedSite) -> None:
    """Every worker has connections of its own to every host, asks on them, and leaves the master's alone."""
    of_master = ports_of_master(preloaded)
    workers = preloaded.worker_pids()
    assert len(workers) == WORKERS
    for pid in workers:
        wait_until_probing(preloaded, pid, inherited=of_master)
    for host in preloaded.cluster.hosts:
        # A connection that was replaced may take a moment to end.
        wait_until(lambda host=host: len(probers(host)) == WORKERS + 1, timeout=20, what=f"one connection for each process on {host.name}")


# Enough that all workers are found ready before the first one has had its share.
RECYCLED_AFTER = "--max-requests 120 --max-requests-jitter 20"


def test_workers_that_are_recycled_keep_the_promise_and_read_from_replicas(served_cluster: Cluster) -> None:
    """gunicorn replaces a worker after some requests: the next one loads pointers and looks at the hosts as the one before did."""
    environment = {"GUNICORN_CMD_ARGS": RECYCLED_AFTER}
    with ServedSite(served_cluster, workers=2, threads=2, environment=environment) as site:
        first = site.worker_pids()
        device = Device(0)
        with Wire(site.port) as wire:
            assert wire.sign_in(device).status == 302
        on_replicas: set[str] = set()
        value = -1
        for number in range(2000):
            with Wire(site.port) as wire:
                answer = wire.request("POST" if number % 10 == 0 else "GET", "/register/", device)
            assert answer.status == 200
            assert answer.body["value"] >= value
            value = answer.body["value"]
            if set(answer.reasons) == {"replica"}:
                on_replicas.add(answer.worker)
            if len(on_replicas - {str(pid) for pid in first}) >= 2:
                return
    raise AssertionError(f"two workers of the second generation never read from a replica; those that did: {on_replicas}, first: {first}")


@on_linux
def test_worker_that_replaces_a_killed_one_probes_and_reads_from_replicas(preloaded: ServedSite) -> None:
    """After `kill -9` of a worker the new one sees the hosts by itself and answers from a replica."""
    of_master = ports_of_master(preloaded)
    backends = backends_at(of_master, preloaded.cluster)
    assert all(backends.values())
    before = preloaded.worker_pids()
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(preloaded.worker_pids() - before) == 1, timeout=60, what="gunicorn to replace the worker")
    (replacement,) = preloaded.worker_pids() - before
    preloaded.wait_until_online()
    wait_until_probing(preloaded, replacement, inherited=of_master)
    devices = sign_in_everybody(preloaded.port)
    preloaded.cluster.wait_until_replicas_caught_up()
    answer = read_by(replacement, preloaded, devices)
    assert set(answer.aliases) <= {"replica1", "replica2"}
    assert set(answer.reasons) == {"replica"}
    assert backends_at(ports_of_master(preloaded), preloaded.cluster) == backends


def read_by(worker: int, site: ServedSite, devices: list[Device]) -> Answer:
    """Return the answer of a certain worker to a read; who gets a connection is not ours to choose.

    Whoever has just signed in may still find that no replica is known to have their session.
    """
    found: list[Answer] = []

    def is_answered() -> bool:
        with Wire(site.port) as wire:
            found.append(wire.request("GET", "/register/", devices[len(found) % len(devices)]))
        return found[-1].worker == str(worker) and "behind" not in found[-1].reasons

    wait_until(is_answered, timeout=60, what=f"worker {worker} to answer from a replica")
    return found[-1]


def sign_in_and_follow(site: ServedSite, user: int, *, forgets_pointer: bool = False) -> tuple[Answer, Answer]:
    """Return the answers to a login and to the page that it redirects to, asked for on a connection of its own.

    `forgets_pointer`: the browser keeps the session's cookie and loses ours, so that the store alone knows.
    """
    device = Device(user)
    with Wire(site.port) as wire:
        redirect = wire.sign_in(device)
    if forgets_pointer:
        del device.cookies[COOKIE_NAME]
    assert redirect.location is not None
    with Wire(site.port) as wire:
        return redirect, wire.request("GET", redirect.location, device)


def test_login_holds_at_the_first_request_in_any_process(served_cluster: Cluster) -> None:
    """Login, redirect, signed in: fifty users in a row, several processes, both replicas seconds behind, with our cookie and without."""
    with ServedSite(served_cluster, workers=WORKERS, threads=1) as site:
        for replica in served_cluster.replicas:
            replica.delay_replay(10)
        users = [user for user in range(LOGINS) for _ in range(2)]
        journeys = [sign_in_and_follow(site, user, forgets_pointer=bool(turn % 2)) for turn, user in enumerate(users)]
    assert [page.body for _, page in journeys] == [{"user": username(user)} for user in users]
    assert {(page.aliases, page.reasons) for _, page in journeys} == {(("default",), ("behind",))}
    assert [1 for redirect, page in journeys if redirect.worker != page.worker], "no login was followed by another process"


def test_login_does_not_hold_without_pointers(served_cluster: Cluster) -> None:
    """The same journey on a site that binds nobody ends signed out: the test above can fail."""
    with ServedSite(served_cluster, workers=WORKERS, threads=1, environment={"SERVED_CONSISTENCY": "eventual"}) as site:
        for replica in served_cluster.replicas:
            replica.delay_replay(10)
        _, page = sign_in_and_follow(site, 0)
    assert page.body == {"user": ""}


class Outsider(Device):
    """Somebody who makes up a session and a token, and keeps no cookie."""

    def headers(self) -> dict[str, str]:
        return {"Cookie": f"sessionid={'m' * 32}", "Authorization": "Bearer made-up"}

    def learn(self, set_cookies: list[str]) -> None:
        """Ignore them."""


def test_outsiders_stop_no_worker_of_a_site_whose_primary_is_frozen(served_cluster: Cluster) -> None:
    """As many as there are workers send a request that a write might be: to no page, and to one that uses nothing."""
    with ServedSite(served_cluster, workers=2, threads=1) as site:
        site.wait_until_online()
        device = Device(1)
        with Wire(site.port) as wire:
            wire.sign_in(device)
        served_cluster.wait_until_replicas_caught_up()
        wait_until(lambda: "default" not in answer(site, "GET", "/register/", device).aliases, timeout=20, what="replicas to answer")
        served_cluster.primary.freeze()
        started = time.monotonic()
        for path in ("/nope/", "/topology/") * 2:
            assert answer(site, "POST", path, Outsider(0)).status == (404 if path == "/nope/" else 200)
        read = answer(site, "GET", "/register/", device)
        # The probes of this site may take ten seconds, so nobody has found out by now.
        assert time.monotonic() - started < 5
        assert (read.status, "default" in read.aliases) == (200, False)


def answer(site: ServedSite, method: str, path: str, device: Device) -> Answer:
    """Ask on a connection of its own, so that whichever worker is free answers."""
    with Wire(site.port) as wire:
        return wire.request(method, path, device)
