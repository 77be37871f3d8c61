"""The servers of this part, with a database for micro cases and one whose statements are logged, to be counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from django_pglb.testing import Cluster

from .contenders import REPLICAS
from .environment import Servers, environment

QUIET, LOGGED = "quiet", "logged"


@contextmanager
def running_servers() -> Iterator[dict[str, Servers]]:
    """Start a primary, its replicas and Redis; both databases have the site's tables. By the database's name."""
    with Cluster(replicas=len(REPLICAS), redis=True, settings={"log_line_prefix": "%a|"}) as cluster:
        both = {name: _servers(cluster, name) for name in (QUIET, LOGGED)}
        cluster.create_database(QUIET)
        run_child("plain", both[QUIET], "django", "migrate", "--verbosity", "0")
        for statement in ("CREATE DATABASE {} TEMPLATE {}", "ALTER DATABASE {} SET log_statement = 'all'"):
            cluster.primary.ask(sql.SQL(statement).format(sql.Identifier(LOGGED), sql.Identifier(QUIET)))
        cluster.wait_until_replicas_caught_up()
        yield both


def run_child(contender: str, servers: Servers, *module: str, is_short: bool = False) -> str:
    """Return what a Python module prints in a process of its own, with the settings of one contender."""
    child = subprocess.run(
        [sys.executable, "-P", "-m", *module], env=environment(contender, servers, is_short=is_short), capture_output=True, text=True
    )
    if child.returncode:
        print(child.stdout, child.stderr, sep="\n", file=sys.stderr)
    child.check_returncode()
    return child.stdout


def _servers(cluster: Cluster, database: str) -> Servers:
    hosts = dict(zip(("default", *REPLICAS), cluster.hosts, strict=True))
    return Servers(
        database=database,
        ports={alias: host.port for alias, host in hosts.items()},
        logs={alias: str(host.log_path) for alias, host in hosts.items()},
        redis=cluster.redis.url,
    )
