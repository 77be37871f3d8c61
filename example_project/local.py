"""The example site on this machine: a real cluster, gunicorn in front of it, and the buttons behind it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from django_pglb.testing import Cluster, wait_until

from .control import ControlServer

if TYPE_CHECKING:
    from types import TracebackType

FOLDER = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
# Where people look first; taken on many a developer's machine.
USUAL_PORT = 8000
START_SECONDS = 60.0
STOP_SECONDS = 15.0
# Redis is new as well: without this its users would be on the primary for the first STICKY_SECONDS.
VOUCH = "from django_pglb.runtime import get_runtime; get_runtime().vouch('default')"


class SiteFailed(Exception):
    """The site or one of its commands ended; the message says which."""


class LocalSite:
    """A cluster of three with Redis, the database of the guestbook in it, and the site that reads it. A context manager."""

    def __init__(self, port: int | None = None) -> None:
        self._listener = _listen(port)
        self.url = f"http://{LOOPBACK}:{self._listener.getsockname()[1]}/"
        self.cluster = Cluster(replicas=2, redis=True)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._listener)
            stack.enter_context(self.cluster)
            # The checker needs `pg_read_all_stats` to see a failover at once.
            self.cluster.create_role("guestbook", monitor=True)
            self.cluster.create_database("guestbook", owner="guestbook")
            self._environment = {**os.environ, **self.variables()}
            self._run_django("migrate", "--verbosity", "0")
            self._run_django("shell", "--no-imports", "--command", VOUCH)
            self.cluster.wait_until_replicas_caught_up()
            control = stack.enter_context(ControlServer(self.cluster))
            self._environment["GUESTBOOK_CONTROL"] = control.path
            self._gunicorn = self._start_gunicorn()
            stack.callback(self._stop_gunicorn)
            wait_until(self._answers, timeout=START_SECONDS, what=f"the site to answer on {self.url}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def variables(self) -> dict[str, str]:
        """Return the environment variables that point the settings at this cluster."""
        hosts = {f"GUESTBOOK_{host.name.upper()}": f"{host.host}:{host.port}" for host in self.cluster.hosts}
        return {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            **hosts,
            "GUESTBOOK_REDIS": self.cluster.redis.url,
            "GUESTBOOK_PASSWORD": self.cluster.primary.password,
        }

    def command_line(self, command: str) -> str:
        """Return a shell line that runs a command of Django against this cluster, from anywhere."""
        # Not arguments of `env`, which everybody on the machine could list: a password is among them.
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables().items()]
        return " ".join([f"cd {shlex.quote(str(FOLDER))} &&", *variables, shlex.join([sys.executable, "-m", "django", command])])

    def wait(self) -> None:
        """Return when gunicorn ends, which it does not do by itself."""
        self._gunicorn.wait()

    def _run_django(self, *arguments: str) -> None:
        done = subprocess.run([sys.executable, "-m", "django", *arguments], cwd=FOLDER, env=self._environment, check=False)
        if done.returncode:
            raise SiteFailed(f"`django {' '.join(arguments)}` ended with {done.returncode}")

    def _start_gunicorn(self) -> subprocess.Popen[bytes]:
        """Start gunicorn on our listening socket: nobody can take the port in between."""
        number = self._listener.fileno()
        started = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:example_project.gunicorn_config", "--bind", f"fd://{number}"],
            cwd=FOLDER,
            env=self._environment,
            stdin=subprocess.PIPE,
            pass_fds=[number],
            # Ctrl-C is for the start command, which ends gunicorn when its turn comes.
            start_new_session=True,
        )
        # While it is open here, browsers could connect to a site that has ended.
        self._listener.close()
        return started

    def _stop_gunicorn(self) -> None:
        if self._gunicorn.stdin is not None:
            self._gunicorn.stdin.close()
        self._gunicorn.terminate()
        try:
            self._gunicorn.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._gunicorn.kill()
            self._gunicorn.wait()

    def _answers(self) -> bool:
        if self._gunicorn.poll() is not None:
            raise SiteFailed(f"gunicorn ended with {self._gunicorn.returncode} while starting")
        try:
            with urllib.request.urlopen(self.url + "hosts/", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def _listen(port: int | None) -> socket.socket:
    """Return a listening socket on `port`; without one, on the usual port if that is free and on any other if it is not."""
    if port is None:
        with contextlib.suppress(OSError):
            return socket.create_server((LOOPBACK, USUAL_PORT))
    return socket.create_server((LOOPBACK, port or 0))
