"""A user's own tests: they need neither a replica nor Redis, and the aliases behave as Django documents mirrors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_pglb.testing import Cluster

ROOT = Path(__file__).parent.parent
RUNNERS = {
    "django": ["-m", "django", "test", "tests.user_project.notes", "--noinput", "-v", "2"],
    "django with pools": ["-m", "django", "test", "tests.user_project.notes", "--noinput"],
    "django in parallel": ["-m", "django", "test", "tests.user_project.notes", "--noinput", "--parallel", "2"],
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
