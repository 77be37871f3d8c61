"""How a process makes its runtime: what settings name is imported then, and may do anything."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_pglb import runtime
from django_pglb.testing import Cluster

ROOT = Path(__file__).parents[1]

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_pglb"]
DATABASE_ROUTERS = ["django_pglb.routers.ReplicaRouter"]
HOST = {{"ENGINE": "django_pglb.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1"}}
DATABASES = {{"default": {{**HOST, "PORT": {port}}}, "replica": {{**HOST, "PORT": {replica}, "TEST": {{"MIRROR": "default"}}}}}}
CACHES = {{"default": {{"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}}}
PGLB = {{"default": {{"REPLICAS": ["replica"], {named}}}}}
"""

ASK = """
def ask():
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT 41 + 1")
        return cursor.fetchone()[0]
"""
AT_ONCE = ASK + "FOUND = ask()\n"
IN_A_UNIT = (
    ASK
    + """
import django_pglb
with django_pglb.routing_session(identity=("user", "1")):
    FOUND = ask()
"""
)
IN_A_THREAD = (
    ASK
    + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor() as executor:
    FOUND = executor.submit(ask).result()
"""
)
NAMES = """
from django_pglb.identity import from_request as identify
from django_pglb.stores import CookieStore
class OurStore(CookieStore):
    pass
class Router:
    pass
def prepare(connection):
    pass
"""

RUN_THREADS = """
import threading, django
django.setup()
from django_pglb import runtime
found = []
threads = [threading.Thread(target=lambda: found.append(runtime.get_runtime())) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import named
print(named.FOUND, len(found), len(set(found)), found[0] is runtime.get_runtime())
"""
FIRST_IS_OURS = """
import django
django.setup()
from django_pglb import runtime
runtime.get_runtime()
import named
print(named.FOUND, runtime.get_runtime() is runtime.get_runtime())
"""


ROUTER_IS_FIRST = """
import django
django.setup()
from django.db import router
from django_pglb import routing_session
class Model:
    _meta = None
with routing_session():
    alias = router.db_for_write(Model)
import named
print(named.FOUND, alias)
"""


def run(cluster: Cluster, folder: Path, program: str, module: str, named: str) -> str:
    """Return what `program` prints in a process whose settings name something in `module`."""
    done = _run(cluster, folder, program, module, named)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def failure(cluster: Cluster, folder: Path, program: str, module: str, named: str) -> str:
    """Return how such a process ends that fails."""
    done = _run(cluster, folder, program, module, named)
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]


def _run(cluster: Cluster, folder: Path, program: str, module: str, named: str) -> subprocess.CompletedProcess[str]:
    (folder / "named.py").write_text(NAMES + module)
    settings = SETTINGS.format(port=cluster.primary.port, replica=cluster.replicas[0].port, named=named)
    (folder / "naming_settings.py").write_text(settings)
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "naming_settings", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("named", ['"IDENTITY": "named.identify"', '"STORE": {"BACKEND": "named.OurStore"}'], ids=["identity", "store"])
@pytest.mark.parametrize("module", [AT_ONCE, IN_A_UNIT, IN_A_THREAD], ids=["at once", "in a unit of work", "in a thread"])
def test_module_that_settings_name_may_query_while_it_is_imported(cluster: Cluster, tmp_path: Path, module: str, named: str) -> None:
    """Whoever imports it, the process goes on, and has one runtime in the end."""
    assert run(cluster, tmp_path, FIRST_IS_OURS, module, named) == "42 True"


@pytest.mark.parametrize("module", [AT_ONCE, IN_A_THREAD], ids=["at once", "in a thread"])
def test_module_that_prepares_sessions_may_run_no_query_while_it_is_imported(cluster: Cluster, tmp_path: Path, module: str) -> None:
    """There is nothing yet that could prepare the session for it. It is told so, and nothing waits for ever."""
    assert "must run no query meanwhile" in failure(cluster, tmp_path, FIRST_IS_OURS, module, '"PREPARE": "named.prepare"')


@pytest.mark.parametrize("module", [IN_A_UNIT, IN_A_THREAD], ids=["in a unit of work", "in a thread"])
def test_module_of_a_router_may_query_while_it_is_imported(cluster: Cluster, tmp_path: Path, module: str) -> None:
    """As with Django's own engine."""
    routers = '}}\nDATABASE_ROUTERS = ["named.Router", *DATABASE_ROUTERS]\nNOTHING = {"x": {'
    assert run(cluster, tmp_path, ROUTER_IS_FIRST, module, routers) == "42 default"


def test_threads_that_come_first_at_once_get_one_runtime(cluster: Cluster, tmp_path: Path) -> None:
    """Also if what is imported for it takes a while."""
    assert run(cluster, tmp_path, RUN_THREADS, "import time; time.sleep(1)\n" + AT_ONCE, '"IDENTITY": "named.identify"') == "42 8 1 True"


def test_settings_that_change_while_a_runtime_is_made_are_those_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made of the former ones is given up."""
    (tmp_path / "resetting.py").write_text(
        "from django_pglb import runtime\nfrom django_pglb.identity import from_request as identify\nruntime.reset()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(PGLB={"default": {**settings.PGLB["default"], "IDENTITY": "resetting.identify"}}):
        made = runtime.get_runtime()
        assert made is runtime.get_runtime()
        assert not made.checker._is_closed
        assert made.config.clusters["default"].identity == "resetting.identify"


def test_failure_is_told_to_all_who_ask_at_once() -> None:
    """Nobody waits for who has failed, and nobody gets what is unfinished."""
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(ImproperlyConfigured) as failure:
            runtime.get_runtime()
        told.append(str(failure.value))

    with override_settings(PGLB={"default": {**settings.PGLB["default"], "IDENTITY": "nowhere.identify"}}):
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(told) == 8
    assert all("nowhere" in message for message in told)
