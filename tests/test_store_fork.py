"""A process that forks while its store is down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from django_pglb.testing import RedisServer

from .fix_store import (
    PATIENT,
    entry,
)

ROOT = Path(__file__).parents[1]

FORKED = """
import os, sys, django
django.setup()
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound
from django_pglb.stores import CacheStore, StoreError

def attempt(work):
    try:
        return work()
    except StoreError as error:
        return str(error).partition(") ")[2]

store = CacheStore(pointer_seconds=60)
store.vouch("default")
print("ready", flush=True)
input()  # frozen
print(attempt(lambda: store.save("default", [("user", "1")], Bound(Pointer(1, 7)))), flush=True)
input()  # thawed
recovery = store._pointers.recovery
with recovery._lock:  # as another thread may hold it at that moment
    child = os.fork()
if not child:
    store.save("default", [("user", "2")], Bound(Pointer(1, 9)))
    print("child", recovery.condition, recovery.owed, store.load("default", [("user", "2")])[0].pointer.lsn, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", recovery.owed, flush=True)
while recovery.condition != "up":
    recovery.join()
print("paid", recovery.owed, store.load("default", [("user", "1")])[0].pointer.lsn, flush=True)
"""


def test_fork_while_the_store_is_down(redis_server: RedisServer, tmp_path: Path) -> None:
    """The child starts anew and waits for no lock; the parent pays what it owes."""
    (tmp_path / "forked_settings.py").write_text(f"SECRET_KEY = 'x'\nCACHES = {entry(redis_server.url, **PATIENT)!r}\n")
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "forked_settings", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    # From 3.12 on Python warns of any fork beside a thread.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        redis_server.freeze()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "does not answer: TimeoutError\n"
        redis_server.thaw()
        output, _ = process.communicate("\n", timeout=60)
    child, parent, paid = output.splitlines()
    assert (child, paid) == ("child up 0 9", "paid 0 7")
    assert parent in {"parent 1", "parent 0"}
    assert process.returncode == 0
