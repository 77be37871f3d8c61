"""What the checker must not do: show passwords, disturb the interpreter's exit, import Django."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from django_pglb.core.topology import HostState
from django_pglb.health.trouble import describe
from django_pglb.testing import Cluster

from .aids import PRIMARY, checking, deaf_port, target_at, target_of, wait_for_states

ROOT = Path(__file__).parents[2]
SECRET = "hunter2"

STRICT = (sys.executable, "-X", "dev", "-W", "error")

SCRIPT = """
import logging, os, sys, time
# -X dev has asyncio complain of each callback that took a tenth of a second, which says something about the machine only.
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))
from django_pglb.core.config import ClusterConfig, ReplicaConfig
from django_pglb.health.checker import Checker
from django_pglb.health.target import target_from_params

def resolve(host, *arguments):
    time.sleep(60)

def target(alias, host, port):
    params = {{"host": host, "port": port, "dbname": "postgres", "user": "plain"}}
    return target_from_params(alias, params, is_primary=alias == "primary")

targets = [target("primary", "127.0.0.1", {primary}), target("replica", "127.0.0.1", {replica}),
           target("deaf", "127.0.0.1", {deaf}), target("hanging", "hang.invalid", 5432)]
config = ClusterConfig(primary="primary", replicas=(ReplicaConfig(alias="replica"),), check_interval=0.05, check_timeout=30)
checker = Checker({{"primary": targets}}, {{"primary": config}}, resolve=resolve)
checker.ensure_running()
while not checker.topology("primary").online:
    time.sleep(0.01)
{then}
print(time.time(), flush=True)
"""


def run(script: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Return how a script ended, and when."""
    done = subprocess.run([*STRICT, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done, time.time()


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("", id="while running"),
        pytest.param("child = os.fork()\nif child: assert os.waitpid(child, 0)[1] == 0", id="in a forked child that never used it"),
        pytest.param(
            "child = os.fork()\nif child: assert os.waitpid(child, 0)[1] == 0\n"
            "else:\n    checker.ensure_running()\n    while not checker.topology('primary').online: time.sleep(0.01)",
            id="in a forked child that runs its own",
        ),
        pytest.param("checker.stop()", id="after stopping"),
        pytest.param("del checker", id="when forgotten"),
    ],
)
def test_interpreter_exits_quietly_and_at_once(cluster: Cluster, then: str) -> None:
    """While hosts hang, nothing is printed, and the process does not wait for the half minute and more that they would take."""
    with deaf_port() as deaf:
        script = SCRIPT.format(primary=cluster.primary.port, replica=cluster.replicas[0].port, deaf=deaf, then=then)
        done, ended_at = run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert ended_at - float(done.stdout.split()[-1]) < 15


EXITS = {
    "every descriptor is closed": "os.closerange(3, 256)",
    "the module is emptied": "sys.modules[Conversations.__module__].__dict__.clear()",
    "it was never finished": "Conversation.__new__(Conversation)",
    "nothing is wrong": "",
}


@pytest.mark.parametrize("exit_", EXITS)
def test_connections_that_are_open_at_exit_are_let_go_without_a_word(exit_: str) -> None:
    """Whatever is gone by then; a handle may go last of all."""
    script = f"""
import builtins, os, socket, sys
from django_pglb.health.conversations import Conversation, Conversations
pair = socket.socketpair()
builtins.kept = Conversations().register("replica1", pair[0].fileno())
pair[0].detach(), pair[1].detach()
{EXITS[exit_]}
"""
    done, _ = run(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_checker_and_report_do_not_import_django() -> None:
    """They serve without settings, and their thread never waits for Django."""
    script = "import sys, django_pglb.health.checker, django_pglb.health.collect; sys.exit('django' in sys.modules)"
    assert run(script)[0].returncode == 0


@pytest.mark.parametrize(
    "params",
    [
        {"password": SECRET},
        {"password": f"{SECRET} x'y\\z"},
        {"dbname": f"postgresql://me:{SECRET} x@nowhere/db"},
        {"dbname": f"host=nowhere password={SECRET} port=x"},
        {"dbname": f"postgresql://me:{SECRET}@nowhere:port/db"},
        {"sslmode": f"{SECRET}"},
        {"password": SECRET, "options": f"-c secret.setting={SECRET} -c {SECRET}"},
    ],
)
def test_secrets_appear_nowhere(cluster: Cluster, caplog: pytest.LogCaptureFixture, params: dict[str, str]) -> None:
    """Not in a log of any logger, a reason, or the `repr` of anything, also where libpq quotes what it cannot parse."""
    caplog.set_level(logging.DEBUG)
    broken = target_at("broken", "127.0.0.1", cluster.replicas[0].port, **params)
    with checking([target_of(cluster.primary), broken]) as checker:
        wait_for_states(checker, broken=HostState.OFFLINE)
        shown = [caplog.text, repr(broken), str(broken), repr(checker.topology(PRIMARY)), repr(checker)]
    assert SECRET not in "".join(shown)


def test_errors_that_are_not_known_are_told_by_class_alone() -> None:
    """Whatever their text says."""
    assert describe(ValueError(SECRET)) == "cannot be probed (ValueError)"


def test_forked_child_is_not_stopped_by_a_lock_of_its_parent() -> None:
    """Another thread of the parent may hold it at the fork; in the child nobody ever lets it go."""
    script = """
import os, signal
from django.conf import settings
settings.configure()
from django_pglb.identity import session_owners
session_owners._lock.acquire()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    signal.alarm(5)
    session_owners.remember("key", "1")
"""
    done, _ = run(script)
    assert (done.returncode, done.stderr) == (0, "")
