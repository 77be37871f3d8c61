"""A child whose parent used the package and was forked without Python's knowledge, as uWSGI does it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_pglb.testing import Cluster

ROOT = Path(__file__).parents[1]

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_pglb"]
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]
MIDDLEWARE = ["django_pglb.middleware.LoadBalancingMiddleware"]
ROOT_URLCONF = "forked_urls"
DATABASES = {databases!r}
CACHES = {{"default": {{"BACKEND": "django_redis.cache.RedisCache", "LOCATION": {redis!r}}}}}
PGLB = {{"default": {{"REPLICAS": ["replica1"], "CHECK_INTERVAL": 1, "CHECK_TIMEOUT": 2}}}}
"""

URLS = """
from django.http import HttpResponse
from django.urls import path
from django_pglb import connection_for_read

def who(request):
    return HttpResponse(connection_for_read().alias)

urlpatterns = [path("", who)]
"""

# `PyDLL` keeps the interpreter's lock, so the child has it; and no hook of Python's runs. All locks are as another thread may hold them.
FORKED = """
import ctypes, os, threading, time, django
django.setup()
from django.db import connections
from django.test import Client
from django_pglb import connection_for_read, routing_session, runtime, use_replicas
from django_pglb.testing import wait_until

def alias_in_unit():
    with routing_session():
        return connection_for_read().alias

def alias_where_stale_is_fine():
    with use_replicas():
        return connection_for_read().alias

def alias_of_page():
    return Client().get("/").content.decode()

def alias_online():
    return next((host.alias for host in runtime.get_runtime().topology("default").online), None)

def is_found_by_child():
    mine = runtime.get_runtime()
    return mine is not parent and (mine.checker.topologies["default"].as_of or 0) > before.as_of

def ask_replica():
    with use_replicas():
        connections["replica1"].cursor().execute("SELECT 1")

parent = runtime.get_runtime()
parent.wait_for_first_look("default")
assert alias_in_unit() == "replica1"
ask_replica()
assert runtime.conversations.count("replica1") == 1
before = parent.checker.topologies["default"]
# Right after a look the checker's thread sleeps. The interpreter's own lock remembers who waits for it, and a child would wait for those.
wait_until(lambda: parent.checker.topologies["default"] is not before, timeout=60, what="another look")
time.sleep(0.2)
runtime._runtime_lock.acquire()
parent.checker._step.acquire()
child = ctypes.PyDLL(None).fork()
if not child:
    # What the parent saw is worth something for a while; after that only a thread of the child's own can have found it.
    wait_until(lambda: {first} == "replica1" and is_found_by_child(), timeout=60, what="the child to find the replica")
    runtime.conversations.sever("replica1")
    os.write(1, b"child well\\n")
    os._exit(0)
parent.checker._step.release()
runtime._runtime_lock.release()
status = os.waitpid(child, 0)[1]
assert runtime.get_runtime() is parent and alias_in_unit() == "replica1"
ask_replica()
print("parent well", status, flush=True)
"""


@pytest.mark.parametrize("first", ["alias_in_unit()", "alias_where_stale_is_fine()", "alias_of_page()", "alias_online()"])
def test_child_that_python_was_not_told_of_begins_anew(healed_cluster: Cluster, tmp_path: Path, first: str) -> None:
    """It reads from replicas that its own checker has found, waits for no lock of its parent's, and severs none of its connections."""
    databases = dict(zip(("default", "replica1"), (host.settings() for host in healed_cluster.hosts), strict=False))
    (tmp_path / "forked_settings.py").write_text(SETTINGS.format(databases=databases, redis=healed_cluster.redis.url))
    (tmp_path / "forked_urls.py").write_text(URLS)
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(first=first)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "forked_settings", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("child well\nparent well 0\n", 0), done.stderr
