"""A worker process of the database backend, which begins when it is told to, and runs one task."""

from __future__ import annotations

import subprocess
import sys
from typing import Self

import django
from django.core.management import call_command

from django_pglb import runtime
from django_pglb.core.topology import HostState
from django_pglb.testing import Cluster, wait_until

from ..fix_served import site_environment
from ..served.program import ROOT

READY = "ready\n"
END_SECONDS = 120
RUN_ONE = ("db_worker", "--backend", "database", "--max-tasks", "1", "--interval", "0.1", "--no-startup-delay")


class Worker:
    """Sees both replicas online, and at the primary's position of now, before it is entered."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._cluster.primary.write_lsn)],
            cwd=ROOT,
            env=site_environment(self._cluster),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline()]
        if lines != [READY]:
            raise AssertionError("".join([*lines, self._process.communicate()[0]]))
        return self

    def run_task(self) -> None:
        """Let it run one task, and end."""
        output, _ = self._process.communicate("run\n", END_SECONDS)
        assert self._process.returncode == 0, output

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()


def main(lsn: int) -> None:
    django.setup()

    def sees_replicas() -> bool:
        replicas = runtime.get_runtime().topology("default").replicas
        return all(host.state is HostState.ONLINE and (host.replay_lsn or 0) >= lsn for host in replicas)

    wait_until(sees_replicas, timeout=60, what="the worker to see both replicas there")
    sys.stdout.write(READY)
    sys.stdout.flush()
    sys.stdin.readline()
    call_command(*RUN_ONE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
