"""A user's own tests: they need neither a replica nor Redis, and the aliases behave as Django documents mirrors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import django
import pytest

from django_pglb.testing import Cluster

ROOT = Path(__file__).parent.parent
PARALLEL = ["--noinput", "--parallel", "2"]
RUNNERS = {
    "django": ["-m", "django", "test", "tests.user_project.notes", "--noinput", "-v", "2"],
    "django with pools": ["-m", "django", "test", "tests.user_project.notes", "--noinput"],
    "django in parallel": ["-m", "django", "test", "tests.user_project.notes", *PARALLEL],
    "django in spawned workers": ["-m", "tests.user_project.started_by", "spawn", "test", "tests.user_project.notes", *PARALLEL],
    "pytest": ["-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "tests/user_project", "tests/user_project/notes"],
}


# It runs no checks, so that nobody has been told.
RUNNERS["pytest with local memory for a cache"] = RUNNERS["pytest"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_users_own_tests_pass_without_a_replica(cluster: Cluster, runner: str) -> None:
    """Each kind of test case, under each runner, with replicas that cannot be reached."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.user_project.settings",
        "USER_PROJECT_PORT": str(cluster.primary.port),
        "USER_PROJECT_POOL": "1" if runner == "django with pools" else "",
        "USER_PROJECT_CACHE": "django.core.cache.backends.locmem.LocMemCache" if "local memory" in runner else "",
    }
    command = [sys.executable, "-W", "error", *RUNNERS[runner]]
    if "pytest" in runner:
        command += ["-o", "python_files=test_*.py tests.py", "-p", "no:randomly"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"Ran (\d+) tests|(\d+) passed", done.stdout + done.stderr)
    assert counted is not None
    assert int(counted[1] or counted[2]) >= 8
    assert runner.startswith("pytest") or "no issues" in done.stdout, done.stdout


STARTS = ["fork", "spawn", *(["forkserver"] if django.VERSION >= (6, 0) else [])]


@pytest.mark.parametrize("start", STARTS)
def test_workers_reach_no_replica(cluster: Cluster, start: str) -> None:
    """However they are started, and although one that streams is there: of tests that use the primary only Django tells them nothing."""
    cluster.heal()
    tests = [f"tests.user_project.notes.tests.{name}" for name in ("OrdinaryTests", "TransactionTests", "LiveTests")]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.user_project.settings",
        "USER_PROJECT_PORT": str(cluster.primary.port),
        "USER_PROJECT_REPLICA_PORT": str(cluster.replicas[0].port),
    }
    command = [sys.executable, "-W", "error", "-m", "tests.user_project.started_by", start, "test", *tests, *PARALLEL]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
