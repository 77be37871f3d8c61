"""How many messages a request sends, as the servers themselves count them: PostgreSQL's logs, and what Redis says it has read.

`python -m benchmarks.costs.trips` visits each page as one contender and prints the means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import django
import psycopg
import redis

from django_pglb.testing import wait_until

from .environment import Servers, is_short, servers
from .readiness import wait_until_ready
from .tables import ANONYMOUS, BOUND, POST, SIGNED_IN

# Each visit reaches one of two replicas: enough that every connection is open before anything is counted.
WARMING_VISITS = 25


class Trips(NamedTuple):
    """Messages that each kind of server has received."""

    primary: float
    replicas: float
    redis: float


class Meter:
    """Asks the servers what they have received from the site."""

    def __init__(self, servers: Servers) -> None:
        self._logs = {alias: Path(log) for alias, log in servers.logs.items()}
        self._message = re.compile(rb"^" + servers.application.encode() + rb"\|LOG:  (?:statement|execute)", re.MULTILINE)
        self._redis = redis.Redis.from_url(servers.redis)
        self._reads()
        # What it reads to answer us.
        self._own_reads = -self._reads() + self._reads()

    @contextmanager
    def counting(self, counted: list[Trips]) -> Iterator[None]:
        """Append what was received during the block."""
        marks, reads = {alias: log.stat().st_size for alias, log in self._logs.items()}, self._reads()
        yield
        from_redis = self._reads() - reads - self._own_reads
        messages = {alias: self._messages(alias, mark) for alias, mark in marks.items()}
        counted.append(Trips(messages.pop("default"), sum(messages.values()), from_redis))

    def _reads(self) -> int:
        # A message of several commands is read at once, so this counts messages.
        return int(self._redis.info("stats")["total_reads_processed"])

    def _messages(self, alias: str, mark: int) -> int:
        with self._logs[alias].open("rb") as log:
            log.seek(mark)
            return len(self._message.findall(log.read()))


class Visitor:
    """A signed-in browser and an anonymous one."""

    def __init__(self, servers: Servers) -> None:
        from django.contrib.auth.models import Group, User
        from django.test import Client

        self._servers = servers
        self._number = 0
        Group.objects.get_or_create(name="readers")
        user, _ = User.objects.get_or_create(username="ann")
        self._anonymous, self._browser = Client(), Client()
        self._browser.force_login(user)
        self._catch_up()

    def warm_up(self) -> None:
        """Open every connection, and let caches know whom they deal with."""
        self.post()
        self._catch_up()
        for _ in range(WARMING_VISITS):
            self.newest()
            self.mine()
        for name in ("pglb", "multidb_pin_writes", "just_updated"):
            self._browser.cookies.pop(name, None)

    def newest(self) -> Any:
        return self._anonymous.get("/newest/")

    def mine(self) -> Any:
        return self._browser.get("/mine/")

    def post(self) -> Any:
        self._number += 1
        return self._browser.post("/rename/", {"name": f"Ann {self._number}"})

    def write_and_wait(self) -> None:
        """Write, and wait until the replicas have it."""
        self.post()
        self._catch_up()

    def _catch_up(self) -> None:
        lsn = self._ask("default", "SELECT pg_current_wal_insert_lsn()::text")
        for alias in self._servers.ports:
            if alias != "default":
                question = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"
                wait_until(partial(self._ask, alias, question), timeout=60, what=f"{alias} to have it")

    def _ask(self, alias: str, query: str) -> Any:
        with psycopg.connect(
            host="127.0.0.1", port=self._servers.ports[alias], user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            row = connection.execute(query.encode()).fetchone()
            return None if row is None else row[0]


def count_all(visits: int) -> dict[str, Trips]:
    """Return the mean of `visits` visits of each page."""
    meter, visitor = Meter(servers()), Visitor(servers())
    visitor.warm_up()
    nothing: Callable[[], object] = lambda: None  # noqa: E731 - a step that three pages do not need
    steps: dict[str, tuple[Callable[[], object], Callable[[], Any]]] = {
        ANONYMOUS: (nothing, visitor.newest),
        SIGNED_IN: (nothing, visitor.mine),
        BOUND: (visitor.write_and_wait, visitor.mine),
        POST: (nothing, visitor.post),
    }
    return {page: _mean(meter, before, visit, visits) for page, (before, visit) in steps.items()}


def _mean(meter: Meter, before: Callable[[], object], visit: Callable[[], Any], visits: int) -> Trips:
    counted: list[Trips] = []
    for _ in range(visits):
        before()
        with meter.counting(counted):
            response = visit()
        if response.status_code not in (200, 302):
            raise RuntimeError(f"a page answered {response.status_code}")
    return Trips(*(sum(column) / visits for column in zip(*counted, strict=True)))


def main() -> None:
    """Print the means as JSON."""
    django.setup()
    wait_until_ready()
    print(json.dumps({page: trips._asdict() for page, trips in count_all(2 if is_short() else 20).items()}))


if __name__ == "__main__":
    main()
