"""Many users at once on an ASGI server: nobody sees anybody else's state, nor misses their own write, and the replicas do the reading."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from django_pglb.testing import Cluster, wait_until

from .fix_served import AsgiSite
from .served.client import Answer, ApiClient, Device, Wire
from .served.history import Operation, find_violations, reads_after_own_write
from .served.load import Load, sign_in_everybody
from .served.prepare import username
from .test_load import delay_replay, share_on_replicas

REQUESTS = 10_000
USERS = 50
CLIENTS = 12
# Replicas that are this far behind give everybody who has just written the chance to miss it.
DELAY_SECONDS = 0.3
# With replicas that are behind, whoever has just written reads from the primary.
LEAST_SHARE_ON_REPLICAS = 0.3

READS = ("/a_register/", "/gathered/", "/async_in_sync/", "/sync_in_async/", "/streamed/")
WRITES = (("POST", "/a_register/"), ("GET", "/streamed/?write"), ("POST", "/raise_later/"))
WRITE_SHARE = 0.03
# What the task of an earlier request has written counts as a write that was answered.
ASK_FOR_TASK_SHARE = 0.05


class MixedLoad(Load):
    """Clients that each send requests of all users, by every path, over one connection. `mix_ups` grows meanwhile."""

    def __init__(self, port: int, devices: Sequence[Device]) -> None:
        super().__init__(port, devices, clients=CLIENTS)
        self.mix_ups: list[str] = []
        self.paths: set[tuple[str, str]] = set()
        self._numbers = count(1)
        self.requests = 0

    def do_one(self, client: int, wire: Wire) -> None:
        device, dice = random.choice(self._devices), random.random()
        method, path = "GET", random.choice(READS)
        if dice < WRITE_SHARE:
            method, path = random.choice(WRITES)
        elif dice < WRITE_SHARE + ASK_FOR_TASK_SHARE:
            path = "/raised_later/"
        started = time.monotonic()
        answer = wire.request(method, path, device)
        self._note(device.user, method, path, answer, started)
        self.paths.add((method, path))
        self.requests = next(self._numbers)

    def _note(self, user: int, method: str, path: str, answer: Answer, started: float) -> None:
        if answer.status != 200:
            self.failures.append(f"user {user}: {path}: status {answer.status}: {str(answer.body)[:300]}")
            return
        lines = [json.loads(line) for line in answer.body.splitlines()] if path.startswith("/streamed/") else [answer.body]
        for line in lines:
            if line["user"] != username(user):
                self.mix_ups.append(f"{method} {path} of {username(user)} was answered with {line}")
        if path == "/raise_later/":
            return
        served = lines[-1].get("served") or list(zip(answer.aliases, answer.reasons, strict=True))
        self.operations.append(
            Operation(
                user=user,
                is_write=(method, path) in WRITES or path == "/raised_later/",
                started=started,
                ended=time.monotonic(),
                value=lines[-1]["value"],
                aliases=tuple(alias for alias, _ in served),
                reasons=tuple(reason for _, reason in served),
                is_bound=answer.is_bound,
            )
        )


@pytest.fixture
def asgi(served_cluster: Cluster) -> Iterator[AsgiSite]:
    with AsgiSite(served_cluster) as site:
        yield site


def everybody(port: int) -> list[Device]:
    """Return two devices of each user: half of them have browsers, half have programs, which nobody is known to share with a browser."""
    return sign_in_everybody(port, USERS // 2) + [ApiClient(user) for user in range(USERS // 2, USERS) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_users_of_an_asgi_server_are_not_mixed_up(asgi: AsgiSite) -> None:
    """10,000 interleaved requests of 50 users by every path: each answer is its user's own, and none misses what that user wrote."""
    devices = everybody(asgi.port)
    delay_replay(asgi.cluster, DELAY_SECONDS)
    with MixedLoad(asgi.port, devices) as load:
        wait_until(lambda: load.requests >= REQUESTS or bool(load.failures), timeout=1200, what="enough requests")
    assert load.failures == [], asgi.read_log()
    assert load.mix_ups == []
    assert [str(violation) for violation in find_violations(load.operations)] == []
    assert load.paths == {*WRITES, *(("GET", path) for path in READS), ("GET", "/raised_later/")}
    assert len(reads_after_own_write(load.operations)) > REQUESTS / 2
    assert {"replica", "behind"} <= {reason for read in load.reads for reason in read.reasons}
    assert share_on_replicas(load.reads) > LEAST_SHARE_ON_REPLICAS


@pytest.mark.slow
def test_load_on_an_asgi_server_sees_that_nobody_is_bound(served_cluster: Cluster) -> None:
    """The same load without pointers finds reads of the past: the test above can fail."""
    with AsgiSite(served_cluster, environment={"SERVED_CONSISTENCY": "eventual"}) as site:
        devices = everybody(site.port)
        served_cluster.wait_until_replicas_caught_up()
        for replica in served_cluster.replicas:
            replica.pause_replay()
        with MixedLoad(site.port, devices) as load:
            wait_until(lambda: bool(find_violations(tuple(load.operations)) or load.failures), timeout=300, what="a read of the past")
    assert load.failures == []
