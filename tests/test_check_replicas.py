"""`manage.py check_replicas`, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from django_pglb.testing import Cluster, wait_until

from .health.aids import deaf_port

ROOT = Path(__file__).parents[1]
DOCUMENTATION = ROOT / "docs" / "check_replicas.md"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write_settings(folder: Path, databases: dict[str, Any], **others: Any) -> None:
    settings = {"SECRET_KEY": "x", "INSTALLED_APPS": ["django_pglb"], "DATABASES": databases, **others}
    text = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    (folder / "tried_settings.py").write_text(text)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "django", "check_replicas", "--settings", "tried_settings", *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command with the settings of `configure`, and returns how it ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def configured(healed_cluster: Cluster, tmp_path: Path) -> Cluster:
    """The cluster, known to the settings that `run` uses."""
    configure(healed_cluster, tmp_path)
    # A single look tells lag by commit times: without a recent commit, one record that is not replayed yet would look old.
    healed_cluster.primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
    healed_cluster.wait_until_replicas_caught_up()
    return healed_cluster


def configure(cluster: Cluster, folder: Path, **others: Any) -> None:
    aliases = dict(zip(("default", "replica1", "replica2"), cluster.hosts, strict=True))
    databases = {alias: host.settings() for alias, host in aliases.items()}
    timeouts = {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 10}
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": cluster.redis.url, "OPTIONS": timeouts}
    others = {"CACHES": {"default": cache}, **others}
    write_settings(folder, databases, **{"PGLB": {"default": {"REPLICAS": ["replica1", "replica2"], "CHECK_TIMEOUT": 10}}, **others})


def test_all_well(configured: Cluster, run: Run) -> None:
    """A table of three hosts on standard output, nothing else, exit status 0."""
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(\w+) +(primary|replica) +(\w+)", done.stdout, re.MULTILINE) == [
        ("default", "primary", "online"),
        ("replica1", "replica", "online"),
        ("replica2", "replica", "online"),
    ]
    assert configured.primary.password not in done.stdout


def test_exit_statuses_tell_how_bad_it_is(configured: Cluster, run: Run) -> None:
    """1 with a replica gone, 2 with both."""
    configured.replicas[0].stop("immediate")
    assert run().returncode == 1
    configured.replicas[1].stop("immediate")
    assert run().returncode == 2


@contextmanager
def redis_setting(cluster: Cluster, **settings: str) -> Iterator[None]:
    """Change settings of the running Redis."""
    with redis.Redis.from_url(cluster.redis.url) as client:
        before = {name: client.config_get(name.replace("_", "-")) for name in settings}
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)
        yield
        for values in before.values():
            for name, value in values.items():
                client.config_set(name, value)


def test_store_that_does_not_answer_is_a_warning(configured: Cluster, run: Run) -> None:
    """Status 1: the site runs, and its users are on the primary. A dead primary is still worse."""
    configured.redis.kill()
    done = run()
    assert (done.returncode, done.stderr) == (1, "")
    assert "Store: cache 'default', offline, does not answer: ConnectionError" in done.stdout
    configured.primary.stop("immediate")
    done = run("--format", "json")
    assert done.returncode == 2
    store = json.loads(done.stdout)["clusters"][0]["store"]
    assert store == {"name": "cache 'default'", "state": "offline", "why": "does not answer: ConnectionError", "advice": []}


def test_store_that_evicts_gets_advice(configured: Cluster, run: Run) -> None:
    """Whatever the policy, if Redis may ever be full; and no status, as for other advice. Looking changes nothing in the store."""
    with redis.Redis.from_url(configured.redis.url) as client:
        client.flushall()
    for policy, limit, expected in (("volatile-ttl", "1gb", True), ("allkeys-lru", "1gb", True), ("allkeys-lru", "0", False)):
        with redis_setting(configured, maxmemory_policy=policy, maxmemory=limit):
            done = run()
        assert (done.returncode, f"store: maxmemory-policy is {policy}" in done.stdout) == (0, expected)
        assert "Store: cache 'default', online, is new or has lost its memory" in done.stdout
    with redis.Redis.from_url(configured.redis.url) as client:
        assert client.dbsize() == 0


def test_store_that_cannot_be_made_is_a_warning(healed_cluster: Cluster, tmp_path: Path, run: Run) -> None:
    """The hosts are reported all the same."""
    configure(
        healed_cluster, tmp_path, PGLB={"default": {"REPLICAS": ["replica1"], "STORE": {"BACKEND": "nobody.Store"}, "CHECK_TIMEOUT": 10}}
    )
    done = run()
    assert done.returncode == 1
    assert "Store: nobody.Store, offline, cannot be made: ModuleNotFoundError" in done.stdout


@pytest.mark.parametrize("others", [{"CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}])
def test_cache_that_is_no_server_is_not_reported(healed_cluster: Cluster, tmp_path: Path, run: Run, others: dict[str, Any]) -> None:
    """Nothing could be said about it."""
    configure(healed_cluster, tmp_path, **others)
    assert "Store" not in run().stdout


def test_threshold_can_be_given(configured: Cluster, run: Run) -> None:
    """A replica that is behind is well by the settings, and lagging by a stricter number."""
    configured.replicas[0].pause_replay()
    time.sleep(0.2)
    configured.primary.ask("SELECT pg_logical_emit_message(true, 'test', 'x')")
    configured.replicas[1].wait_until_caught_up()
    assert run().returncode == 0
    done = run("--max-lag-seconds", "0.1")
    assert (done.returncode, "lagging" in done.stdout) == (1, True)


@pytest.mark.usefixtures("configured")
def test_one_cluster_can_be_chosen_by_any_of_its_aliases(run: Run) -> None:
    """A replica's alias names its cluster, too."""
    assert run("--database", "replica1").stdout.startswith("Cluster default")


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "xml"], "invalid choice"),
        (["--max-lag-seconds", "-1"], "not a positive number"),
        (["--max-lag-seconds", "nan"], "not a positive number"),
        (["--watch", "0"], "not a positive number"),
        (["--database", "elsewhere"], "'elsewhere' belongs to no cluster of PGLB; these do: default, replica1, replica2"),
        (["--bogus"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_exits_3(run: Run, arguments: list[str], message: str) -> None:
    """Neither 1 nor 2, which would be read as trouble with the replicas."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"PGLB": {}}, "PGLB names no cluster"),
        ({"PGLB_ENABLED": False, "PGLB": {"default": {"REPLICAS": ["nobody"]}}}, "nobody"),
        ({"PGLB": {"default": {"REPLICAS": ["nobody"]}}}, "nobody"),
        (
            {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x"}}, "PGLB": {"default": {"REPLICAS": []}}},
            "sqlite3",
        ),
    ],
)
def test_nothing_to_check_exits_3(cluster: Cluster, tmp_path: Path, run: Run, others: dict[str, Any], message: str) -> None:
    """With the reason."""
    configure(cluster, tmp_path, **others)
    done = run()
    assert (done.returncode, done.stdout) == (3, "")
    assert message in done.stderr


def test_what_is_switched_off_is_looked_at_all_the_same(healed_cluster: Cluster, tmp_path: Path, run: Run) -> None:
    """It is looked at before it is switched on, and the word is said."""
    configure(healed_cluster, tmp_path, PGLB_ENABLED=False)
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "PGLB_ENABLED is False: all is off" in done.stdout
    assert done.stdout.count("online") >= 3
    document = json.loads(run("--format", "json").stdout)
    assert (document["enabled"], len(document["clusters"])) == (False, 1)
    healed_cluster.replicas[0].stop()
    assert run().returncode == 1


def documented_keys() -> set[str]:
    return set(re.findall(r"^\| `([a-z_.\[\]]+)` \|", DOCUMENTATION.read_text().split("## JSON")[1], re.MULTILINE))


def keys_of(value: Any, path: str = "") -> set[str]:
    if isinstance(value, list):
        return set().union(*(keys_of(entry, f"{path}[]") for entry in value if not isinstance(entry, str)))
    if not isinstance(value, dict):
        return set()
    paths = {key: f"{path}.{key}".lstrip(".") for key in value}
    return set(paths.values()).union(*(keys_of(value[key], paths[key]) for key in value))


@pytest.mark.usefixtures("configured")
def test_json_has_exactly_the_documented_keys(run: Run) -> None:
    """No more, no less, and the status is the exit status."""
    document = json.loads(run("--format", "json").stdout)
    assert keys_of(document) == documented_keys()
    assert (document["version"], document["status"]) == (1, 0)
    assert [host["alias"] for host in document["clusters"][0]["hosts"]] == ["default", "replica1", "replica2"]


def test_json_keeps_its_keys_when_hosts_are_gone(configured: Cluster, run: Run) -> None:
    """What is not known is null."""
    for host in configured.hosts:
        host.stop("immediate")
    done = run("--format", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"], keys_of(document)) == (2, 2, documented_keys())
    assert document["clusters"][0]["hosts"][1]["lag_seconds"] is None


@pytest.mark.usefixtures("configured")
def test_watch_looks_again_until_interrupted(tmp_path: Path) -> None:
    """Each look with JSON is a line; Ctrl-C ends it quietly, also in the middle of a look."""
    output = tmp_path / "output"
    with output.open("w") as stdout:
        process = subprocess.Popen(
            command("--watch", "0.05", "--format", "json"),
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: output.read_text().count("\n") >= 3, timeout=60, what="three looks")
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert all(json.loads(line)["status"] == 0 for line in output.read_text().splitlines())


def test_watch_is_interrupted_in_the_middle_of_a_look(tmp_path: Path) -> None:
    """Also while a host hangs: quietly, and at once."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as deaf:
        deaf.settimeout(30)
        configure_deaf(tmp_path, deaf.getsockname()[1], CHECK_TIMEOUT=30)
        process = subprocess.Popen(
            command("--watch"), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with deaf.accept()[0]:
            interrupted_at = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert (process.communicate(timeout=25), process.returncode) == (("", ""), 0)
        assert time.monotonic() - interrupted_at < 15


def configure_deaf(folder: Path, port: int, **keys: Any) -> None:
    host = {"ENGINE": "django_pglb.backends.postgresql", "NAME": "x", "USER": "x", "HOST": "127.0.0.1", "PORT": port}
    clusters = {primary: [f"{primary}_replica{number}" for number in range(20)] for primary in ("default", "other")}
    aliases = [alias for primary, replicas in clusters.items() for alias in (primary, *replicas)]
    settings = {primary: {"REPLICAS": replicas, **keys} for primary, replicas in clusters.items()}
    write_settings(folder, dict.fromkeys(aliases, host), PGLB=settings)


TIMED = """
import time, django
django.setup()
from django_pglb.management.commands.check_replicas import Command
command, started_at = Command(), time.monotonic()
try:
    command.handle(database=None, format="table", watch=None, max_lag_seconds=None)
except SystemExit as ended:
    print("ended", ended.code, time.monotonic() - started_at)
"""


def test_answers_in_time_when_every_host_hangs(tmp_path: Path) -> None:
    """Two clusters of twenty replicas each: within CHECK_TIMEOUT and a second, counted from `handle()`."""
    with deaf_port() as port:
        configure_deaf(tmp_path, port)
        environ = {**environment(tmp_path), "DJANGO_SETTINGS_MODULE": "tried_settings"}
        arguments = [sys.executable, "-W", "error", "-c", TIMED]
        done = subprocess.run(arguments, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    _, status, seconds = done.stdout.splitlines()[-1].split()
    assert status == "2"
    assert float(seconds) < 2
    assert done.stdout.count("no answer within 1 s") == 42
