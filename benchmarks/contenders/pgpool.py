"""pgpool-II between Django and the cluster: it reads each statement and chooses the host."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from django_pglb.testing import Cluster, PostgresHost
from django_pglb.testing.account import make_folder, server_account
from django_pglb.testing.passwords import PASSWORD, write_private
from django_pglb.testing.ports import LOOPBACK, free_port
from django_pglb.testing.postgres import SUPERUSER
from django_pglb.testing.server import Server

# Where Debian puts it, which is not on everybody's PATH.
SYSTEM_FOLDER = "/usr/sbin"
PORT_VARIABLE = "BENCHMARK_PGPOOL_PORT"

# What a site with two replicas would set. Of version 4.3's defaults these matter here and stay: `delay_threshold = 0` (no replica is too
# far behind to be read from), `failover_on_backend_error = on` (a host whose connection breaks is out), `auto_failback = off` (and stays
# out until somebody attaches it), no `failover_command` (nobody is promoted).
SETTINGS: Mapping[str, str | int] = {
    "backend_clustering_mode": "streaming_replication",
    "load_balance_mode": "on",
    # Off by default: a connection would read from one host as long as it lives, and Django's live long.
    "statement_level_load_balance": "on",
    # The default: after a write, the rest of its transaction reads from the primary; without a transaction, nothing does.
    "disable_load_balance_on_write": "transaction",
    # Health checks are off by default. These are as frequent as ours, and more patient: pgpool never takes back a host that it gave up.
    "health_check_period": 1,
    "health_check_timeout": 3,
    "health_check_user": SUPERUSER,
    "sr_check_period": 1,
    "sr_check_user": SUPERUSER,
    # The default: so many connections can be open at a time.
    "num_init_children": 32,
}

# A word says that pgpool ($1) has ended; without one, its owner has. It is then shut down and not killed: that would leave 130 MB of shared
# memory behind. A fast shutdown takes 0.2 s.
CLEANER = 'read -r word || { kill -INT "$1"; sleep 5; }; rm -rf "$2"'


def find_pgpool() -> Path | None:
    """Return pgpool's program, None if there is none."""
    found = shutil.which("pgpool") or shutil.which("pgpool", path=SYSTEM_FOLDER)
    return Path(found) if found else None


def missing() -> str | None:
    """Say that pgpool is not installed, if it is not."""
    return None if find_pgpool() else "pgpool-II is not installed (Debian's package is pgpool2)"


def configure(settings: dict[str, Any]) -> None:
    """Give Django a single database, which is pgpool; the environment says on which port."""
    default = settings["DATABASES"]["default"]
    settings["DATABASES"] = {"default": {**default, "HOST": LOOPBACK, "PORT": os.environ[PORT_VARIABLE]}}


class Pgpool(Server):
    """pgpool-II on a free port of loopback, in front of a cluster whose replicas alone it reads from. A context manager.

    Ends with this process, however that ends. A host that was down once stays out of it: make a new one after each fault.
    """

    def __init__(self, cluster: Cluster) -> None:
        program = find_pgpool()
        if program is None:
            raise FileNotFoundError(missing())
        account = server_account()
        self._folder = make_folder(account)
        super().__init__(name="pgpool", home=self._folder / "pgpool", port=free_port(), programs=[program.name], account=account)
        self._program = program
        self._cluster = cluster
        self._settings_path = self.home.with_suffix(".conf")
        self._passwords_path = self.home.with_suffix(".passwords")

    def __enter__(self) -> Self:
        self.configure()
        self.launch()
        self._cleaner = self._hire_cleaner()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End pgpool and its children, and remove every trace."""
        # Its fast shutdown, which waits for no client.
        self._signal_and_wait(signal.SIGINT)
        self._cleaner.communicate(b"ended\n")

    def configure(self) -> None:
        """Write the configuration file."""
        self._settings_path.write_text("".join(f"{name} = '{value}'\n" for name, value in self._all_settings().items()))
        self._settings_path.chmod(0o644)
        # What pgpool's own checks, and its children in their clients' name, tell the hosts.
        write_private(self._passwords_path, f"{SUPERUSER}:TEXT{PASSWORD}\n", self._account)

    def hosts(self) -> list[dict[str, Any]]:
        """Return what pgpool knows of the hosts, the primary first: `SHOW pool_nodes`."""
        address = f"host={self.host} port={self.port} user={SUPERUSER} dbname=postgres connect_timeout=10"
        with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute("SHOW pool_nodes").fetchall()

    def _all_settings(self) -> dict[str, str | int]:
        settings = {
            **SETTINGS,
            "listen_addresses": self.host,
            "port": self.port,
            "pcp_listen_addresses": self.host,
            "pcp_port": free_port(),
            "pid_file_name": f"{self.home}/pgpool.pid",
            "pool_passwd": str(self._passwords_path),
            **{name: str(self.home) for name in ("socket_dir", "pcp_socket_dir", "wd_ipc_socket_dir", "logdir", "memqcache_oiddir")},
        }
        for number, host in enumerate(self._cluster.hosts):
            settings |= _backend(number, host, weight=0 if host is self._cluster.primary else 1)
        return settings

    def _command(self) -> list[str]:
        return [str(self._program), "-n", "-D", "-f", str(self._settings_path)]

    def _is_ready(self) -> bool:
        """Whether pgpool knows that every host is up, and which is the primary."""
        self._check_alive()
        try:
            hosts = self.hosts()
        except psycopg.OperationalError:
            return False
        roles = ["primary", *("standby" for _ in self._cluster.replicas)]
        return [(host["status"], host["role"]) for host in hosts] == [("up", role) for role in roles]

    def _hire_cleaner(self) -> subprocess.Popen[bytes]:
        """Start the process that cleans up, also when this one is killed."""
        return subprocess.Popen(
            ["/bin/sh", "-c", CLEANER, "sh", str(self.pid), str(self._folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _backend(number: int, host: PostgresHost, *, weight: int) -> dict[str, str | int]:
    return {
        f"backend_hostname{number}": host.host,
        f"backend_port{number}": host.port,
        f"backend_weight{number}": weight,
        f"backend_data_directory{number}": str(host.data_folder),
        f"backend_application_name{number}": host.name,
    }
