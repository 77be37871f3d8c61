"""What a request costs, counted on the servers: their statement logs and Redis' MONITOR, not wrappers of ours."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import Client

from django_pglb.core.decision import Reason
from django_pglb.testing import wait_until

from .fix_site import Served, Site

ALIASES = ("default", "replica1", "replica2")


@contextmanager
def redis_commands(site: Site) -> Iterator[list[str]]:
    """Collect what Redis is asked inside the block, as Redis itself reports it."""
    seen: list[str] = []
    ready, done = threading.Event(), "pglb-test-end"

    def listen() -> None:
        with site.redis.monitor() as monitor:
            ready.set()
            for command in monitor.listen():
                if done in command["command"]:
                    return
                # Connections greet when they are opened: the one that ends this is.
                if not command["command"].startswith(("HELLO", "CLIENT")):
                    seen.append(command["command"])

    thread = threading.Thread(target=listen)
    thread.start()
    ready.wait(10)
    try:
        yield seen
    finally:
        site.redis.echo(done)
        thread.join(10)


@pytest.fixture
def signed_in(site: Site, user: Any, settings: Any) -> Client:
    """A browser that has logged in, whose process knows whose session it is, with replicas that have it all."""
    browser = Client()
    browser.post("/sign_in/", {"username": "ann", "password": "secret"})
    site.wait_until_seen()
    for _ in range(8):
        assert browser.get("/whoami/").json() == {"user": "ann"}
    # A request that takes longer than an interval asks the store again, and a busy machine may need as long as that.
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    site.wait_until_online()
    return browser


def test_steady_get_of_a_signed_in_user(site: Site, signed_in: Client) -> None:
    """No message to the primary, the application's two queries on a replica, one command to Redis."""
    # Not bound: as after POINTER_SECONDS without a write.
    del signed_in.cookies["pglb"]
    site.forget_pointers()
    marks = {alias: site.log_end(alias) for alias in ALIASES}
    with redis_commands(site) as commands:
        response = signed_in.get("/whoami/")
    served = Served(response)
    assert (response.json(), served.reasons) == ({"user": "ann"}, {Reason.REPLICA})
    (alias,) = served.aliases
    session_query, user_query = site.statements(alias, marks[alias])
    assert "django_session" in session_query
    assert "auth_user" in user_query
    assert all(site.statements(other, marks[other]) == [] for other in ALIASES if other != alias)
    assert [command.split()[0] for command in commands] == ["MGET"]


def test_bound_get_of_a_signed_in_user(site: Site, signed_in: Client) -> None:
    """The same number of messages: the first one carries the proof."""
    marks = {alias: site.log_end(alias) for alias in ALIASES}
    (alias,) = Served(signed_in.get("/whoami/")).aliases
    first, second = site.statements(alias, marks[alias])
    assert ("pg_last_wal_replay_lsn" in first, "pg_last_wal_replay_lsn" in second) == (True, False)
    assert site.statements("default", marks["default"]) == []


def test_request_without_identity_asks_redis_nothing(site: Site) -> None:
    """A visitor's read costs one query on a replica."""
    with redis_commands(site) as commands:
        assert Served(Client().get("/newest/")).reasons == {Reason.REPLICA}
    assert commands == []


def test_request_that_reads_nothing_costs_nothing(site: Site, signed_in: Client) -> None:
    """Neither Redis nor PostgreSQL hears of it."""
    marks = {alias: site.log_end(alias) for alias in ALIASES}
    with redis_commands(site) as commands:
        signed_in.get("/nothing/")
    assert commands == []
    assert all(site.statements(alias, marks[alias]) == [] for alias in ALIASES)


def test_first_request_of_a_session_in_this_process_asks_redis_twice(site: Site, signed_in: Client) -> None:
    """Once by the session key, once by the user id that the session reveals; after that once."""
    from django_pglb.identity import session_owners

    session_owners.clear()
    with redis_commands(site) as commands:
        signed_in.get("/newest/")
        site.redis.echo("second")
        signed_in.get("/newest/")
    assert [command.split()[0] for command in commands] == ["MGET", "MGET", "ECHO", "MGET"]


def test_write_costs_one_position_and_one_save(site: Site, signed_in: Client) -> None:
    """After the commit one message to the primary, and one script per identity."""
    mark = site.log_end("default")
    with redis_commands(site) as commands:
        signed_in.post("/write/", {"text": "x"})
    messages = site.statements("default", mark)
    assert [text for text in messages if "pg_current_wal_insert_lsn" in text] == messages[-1:]
    scripts = [command for command in commands if command.startswith("EVAL")]
    assert len(scripts) == 2


def test_checker_probes_each_host_once_per_interval(site: Site) -> None:
    """Counted in the servers' logs: about one probe per host and interval, whatever the traffic."""

    def probes() -> list[int]:
        # First all logs, then the counting: searching one may take as long as an interval.
        logs = [site.host(alias).read_log() for alias in ALIASES]
        return [len(re.findall(r"^django-pglb-checker\|site\|LOG:  (?:statement|execute)", log, re.MULTILINE)) for log in logs]

    # Before the first log is read: searching them takes a while, in which hosts are probed as well.
    started, before = time.monotonic(), probes()
    for _ in range(50):
        Client().get("/newest/")
    # Many enough that twice as many were too many.
    wait_until(lambda: probes()[0] - before[0] >= 10, timeout=60, what="ten more probes")
    counts = [after - earlier for after, earlier in zip(probes(), before, strict=True)]
    assert max(counts) <= 2 * min(counts)
    # The interval is 0.2 s, a tenth shorter at times.
    assert max(counts) <= (time.monotonic() - started) / 0.18 + 3
