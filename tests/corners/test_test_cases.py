"""Django's and pytest-django's kinds of test, in a project of its own: what a test has written it reads, wherever the mirror would look."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_pglb.testing import Cluster

ROOT = Path(__file__).parent.parent.parent
COMMAND = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull, "--rootdir", "tests/user_project", "-rA", "-q"]
# The mirror has a connection of its own, which sees neither what the test's transaction has written nor what one inside it has; where no
# mirror is allowed, Django forbids to ask it.
FAILS_NAIVELY = {
    "InTransaction::test_reads_see_the_transaction_of_the_test",
    "InTransaction::test_reads_see_what_was_set_up_for_the_class",
    "InTransaction::test_hooks_are_captured",
    "InTransaction::test_block_on_the_mirror_is_part_of_it",
    "InTransaction::test_stale_block_on_the_mirror_is_part_of_it",
    "WithAtomicRequests::test_reads_see_the_transaction_of_the_test",
    "Committed::test_transaction_is_read_on_the_primary",
    "Committed::test_block_on_the_mirror_is_the_primarys",
    "Committed::test_stale_block_on_the_mirror_is_its_own",
    "CommittedOnOne::test_reads_use_what_is_allowed",
    "test_mark_in_a_transaction",
    "test_mark_with_commits_on_one",
}


@pytest.mark.parametrize("router", ["pglb", "naive"])
def test_kinds_of_test(cluster: Cluster, router: str) -> None:
    """All of them pass with our router, without a replica. With a naive one, on a mirror that is there, those fail that it gets wrong."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.user_project.settings",
        "USER_PROJECT_PORT": str(cluster.primary.port),
        "USER_PROJECT_NAIVE": "1" if router == "naive" else "",
    }
    command = [sys.executable, "-W", "error", *COMMAND, "tests/user_project/notes/test_corners.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    outcomes = {
        name: outcome for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+?test_corners\.py::(\S+)", done.stdout, re.MULTILINE)
    }
    assert len(outcomes) > len(FAILS_NAIVELY), done.stdout + done.stderr
    failed = {name for name, outcome in outcomes.items() if outcome != "PASSED"}
    assert failed == (FAILS_NAIVELY if router == "naive" else set()), done.stdout
