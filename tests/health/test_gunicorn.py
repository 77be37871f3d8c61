"""The checker in the workers of a server that loads the site before it forks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from django_pglb.health.target import APPLICATION_NAME
from django_pglb.testing import Cluster, wait_until
from django_pglb.testing.ports import free_port

pytest.importorskip("gunicorn")

ROOT = Path(__file__).parents[2]
WORKERS = 3

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_pglb"]
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]
DATABASES = {databases!r}
CACHES = {{"default": {{"BACKEND": "django_redis.cache.RedisCache", "LOCATION": {redis!r}}}}}
PGLB = {{"default": {{"REPLICAS": ["replica1", "replica2"], "CHECK_INTERVAL": 0.1}}}}
"""

# Answers with its process and who is online, as a read that wants a replica would learn it.
APPLICATION = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "preloaded_settings"
import django
django.setup()
from django_pglb import runtime
{preload}

def application(environ, start_response):
    online = runtime.get_runtime().topology("default").online
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{len(online)}}".encode()]
"""


@contextmanager
def served(cluster: Cluster, folder: Path, preload: str) -> Iterator[str]:
    """The application's address."""
    databases = dict(zip(("default", "replica1", "replica2"), (host.settings() for host in cluster.hosts), strict=True))
    (folder / "preloaded_settings.py").write_text(SETTINGS.format(databases=databases, redis=cluster.redis.url))
    (folder / "preloaded.py").write_text(APPLICATION.format(preload=preload))
    port = free_port()
    options = [
        "--preload",
        "--workers",
        str(WORKERS),
        "--bind",
        f"127.0.0.1:{port}",
        "--worker-tmp-dir",
        str(folder),
        "--no-control-socket",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *_understood(options), "preloaded:application"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _understood(options: list[str]) -> list[str]:
    """Leave out what older versions do not know."""
    known = subprocess.run([sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True, check=True).stdout
    return [option for option in options if option != "--no-control-socket" or option in known]


def answer(address: str) -> tuple[int, int]:
    with urllib.request.urlopen(address, timeout=5) as response:
        pid, online = response.read().split()
    return int(pid), int(online)


@pytest.mark.parametrize(
    ("preload", "in_master"),
    [
        pytest.param("", 0, id="master never asked"),
        pytest.param('runtime.get_runtime().checker.wait_until_known(10)\nassert runtime.get_runtime().topology("default")', 1, id="asked"),
    ],
)
def test_every_worker_probes_for_itself(healed_cluster: Cluster, tmp_path: Path, preload: str, in_master: int) -> None:
    """Each comes to see both replicas, and the server counts as many checkers as there are processes that run one."""

    def checkers() -> int:
        counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        return int(healed_cluster.replicas[0].ask(counted, (APPLICATION_NAME,)))

    with served(healed_cluster, tmp_path, preload) as address:
        seen: dict[int, int] = {}

        def all_workers_see_both() -> bool:
            try:
                seen.update([answer(address)])
            except OSError:
                return False  # not up yet
            return len(seen) == WORKERS and set(seen.values()) == {2}

        wait_until(all_workers_see_both, timeout=60, what=f"{WORKERS} workers to see both replicas, {tmp_path / 'log'}")
        # Connections of checkers that have just ended may still be there.
        wait_until(lambda: checkers() == WORKERS + in_master, timeout=20, what="as many checkers as processes that run one")
        seen_by = checkers()
    assert seen_by == WORKERS + in_master
    wait_until(lambda: not checkers(), timeout=20, what="all connections to end")
    assert "Traceback" not in (tmp_path / "log").read_text()
