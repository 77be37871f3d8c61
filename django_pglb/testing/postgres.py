"""PostgreSQL hosts of the local cluster: a primary, and replicas that stream from it."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from django_pglb.core.lsn import format_lsn, normalise, parse_lsn

from .account import Account
from .binaries import PostgresBinaries
from .errors import ClusterError, ServerFailed
from .passwords import PASSWORD, write_private
from .ports import free_port
from .server import START_SECONDS, Server
from .shared_memory import remove_shared_memory
from .waiting import wait_until

SUPERUSER = "postgres"
DEFAULT_ENGINE = "django_pglb.backends.postgresql"

# Every program that a host or the making of it may leave running.
PROGRAMS = ("postgres", "initdb", "pg_basebackup")

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Small and quick. Page images stay on, because a process killed in the middle of writing a page may leave half of it.
BASE_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "fsync": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_wal_senders": "20",
    # A replica that was paused or dead must find the WAL it missed.
    "wal_keep_size": "2GB",
    "wal_receiver_status_interval": "1s",
    # A replica looks for its upstream this often; the default of 5 s would be the longest wait of most tests.
    "wal_retrieve_retry_interval": "100ms",
    # The alternatives leave segments in /dev/shm behind when a server is killed.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

CLIENT_AUTHENTICATION = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"

# A password of 128 random bits gains nothing by being hashed slowly, and every connection would pay for it.
QUICK_HASHES = ("scram_iterations", "1")
FIRST_WITH_QUICK_HASHES = 16


class PostgresHost(Server):
    """One PostgreSQL server of the local cluster."""

    def __init__(self, *, name: str, home: Path, binaries: PostgresBinaries, account: Account, settings: Mapping[str, str]) -> None:
        super().__init__(name=name, home=home, port=free_port(), programs=PROGRAMS, account=account)
        self.data_folder = home / "data"
        # Outside the data folder: root writes them, and what the server's account owns could be a link to anywhere.
        self._settings_path = home.with_suffix(".conf")
        self._authentication_path = home.with_suffix(".hba.conf")
        self._binaries = binaries
        self._settings = dict(settings)

    # Reaching it

    @property
    def password(self) -> str:
        """The superuser's password, and that of the roles which `Cluster.create_role()` makes."""
        return PASSWORD

    def connect(self, **arguments: Any) -> psycopg.Connection[TupleRow]:
        """Return a new connection, as the superuser, in autocommit, to the database `postgres`, unless `arguments` say otherwise."""
        defaults = {"dbname": "postgres", "user": SUPERUSER, "password": self.password, "autocommit": True, "connect_timeout": 10}
        return psycopg.connect(host=self.host, port=self.port, **{**defaults, **arguments})

    def settings(self, name: str = "postgres", engine: str = DEFAULT_ENGINE, **overrides: Any) -> dict[str, Any]:
        """Return this host's entry for Django's `DATABASES`; `overrides` are further keys such as `TEST` or `OPTIONS`."""
        entry = {"ENGINE": engine, "NAME": name, "USER": SUPERUSER, "PASSWORD": self.password, "HOST": self.host, "PORT": str(self.port)}
        return {**entry, **overrides}

    def ask(self, query: LiteralString | sql.Composed, parameters: tuple[object, ...] = ()) -> Any:
        """Return the first column of the first row that `query` gives on this host, None if there is no row."""
        # After a pause with a backlog even a trivial statement can be cancelled by replay, several times in a row.
        for attempts_left in reversed(range(20)):
            try:
                with self.connect() as connection:
                    cursor = connection.execute(query, parameters or None)
                    row = cursor.fetchone() if cursor.description else None
                    return row[0] if row else None
            except psycopg.OperationalError as error:
                # By its text: to whoever is only just connecting the server tells no SQLSTATE.
                if not attempts_left or "conflict with recovery" not in str(error):
                    raise
        raise AssertionError("unreachable")

    @property
    def is_in_recovery(self) -> bool:
        """Whether the server is a standby now: false for a primary and for a promoted replica."""
        return bool(self.ask("SELECT pg_is_in_recovery()"))

    @property
    def is_accepting_connections(self) -> bool:
        """Whether a connection can be made within two seconds."""
        try:
            with self.connect(connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    @property
    def timeline(self) -> int:
        """The timeline that a server which is not in recovery writes on."""
        return int(self.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"), 16)

    @property
    def write_lsn(self) -> int:
        """The position that a replica must replay to have everything written here so far, which it will do at once.

        Ask once and keep it: each time something is written.
        """
        # What no commit has flushed, hint bits for example, is not sent until the next one: up to 15 s on an idle primary. So commit
        # something that is written to the WAL: else the commit itself is left to the WAL writer.
        self.ask("SELECT pg_logical_emit_message(true, 'django-pglb', '')::text")
        return normalise(parse_lsn(self.ask("SELECT pg_current_wal_insert_lsn()::text")))

    # Its life

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut the server down in PostgreSQL's mode of that name; harmless when it is down."""
        self._signal_and_wait(_STOP_SIGNALS[mode])
        self._forget_pid_file()

    def kill(self) -> None:
        """End the postmaster and all its children with SIGKILL; `start()` then goes through crash recovery."""
        postmaster = self.pid if self.is_running else None
        super().kill()
        self._forget_pid_file()
        if postmaster is not None:
            remove_shared_memory(postmaster)

    def restart(self, mode: StopMode = "immediate") -> None:
        """Stop and start the server; the default mode makes it go through crash recovery."""
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        """Make the server read its configuration and wait until every process that matters was told."""
        loaded = self.ask("SELECT pg_conf_load_time()")
        self.ask("SELECT pg_reload_conf()")
        # A backend that starts with the new configuration was forked after the postmaster had signalled its other children.
        wait_until(lambda: self.ask("SELECT pg_conf_load_time()") != loaded, timeout=10, what=f"{self.name} to reload its settings")

    def alter_system(self, name: str, value: str | int) -> None:
        """Change a setting that needs no restart, and wait until it is in force."""
        self.ask(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self.reload()

    def reset_system(self) -> None:
        """Undo every `ALTER SYSTEM`; costs nothing when there was none."""
        file = self.data_folder / "postgresql.auto.conf"
        altered = file.read_text().splitlines() if file.exists() else []
        if any(line.strip() and not line.startswith("#") for line in altered):
            self.ask("ALTER SYSTEM RESET ALL")
            self.reload()

    # Making it

    def create(self) -> None:
        """Make the data folder of a new, independent server."""
        password_path = self.home.with_suffix(".password")
        write_private(password_path, self.password, self._account)
        self._run_tool(
            [
                self._binaries.program("initdb"),
                *("-D", str(self.data_folder), "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password_path}", "-E", "UTF8"),
                *("--no-sync", "--no-instructions", *_locale_options(self._binaries.major_version)),
                *(("-c", "=".join(QUICK_HASHES)) if self._binaries.major_version >= FIRST_WITH_QUICK_HASHES else ()),
            ]
        )
        password_path.unlink()
        self.configure()

    def configure(self) -> None:
        """Write the configuration files; a running server must be reloaded."""
        lines = [f"{name} = {_quoted(value)}\n" for name, value in self._all_settings().items()]
        for path, text in ((self._settings_path, "".join(lines)), (self._authentication_path, CLIENT_AUTHENTICATION)):
            write_private(path, text, self._account)

    def _all_settings(self) -> dict[str, str]:
        settings = {**BASE_SETTINGS, "port": str(self.port), "cluster_name": self.name}
        if self._binaries.has_library("pg_stat_statements"):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        if self._binaries.major_version >= FIRST_WITH_QUICK_HASHES:
            settings.update([QUICK_HASHES])
        if self._binaries.major_version >= 18:
            # Three worker processes less for each host.
            settings["io_method"] = "sync"
        return {**settings, **self._settings}

    def _command(self) -> list[str]:
        files = (f"config_file={self._settings_path}", f"hba_file={self._authentication_path}")
        return [self._binaries.program("postgres"), "-D", str(self.data_folder), *(word for file in files for word in ("-c", file))]

    def _is_ready(self) -> bool:
        """Read the server's own pid file: it costs nothing and leaves no failed connections in the log."""
        self._check_alive()
        try:
            lines = (self.data_folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _forget_pid_file(self) -> None:
        # A dead server's file would stop the next start if its process id had been given to somebody else.
        with contextlib.suppress(FileNotFoundError):
            (self.data_folder / "postmaster.pid").unlink()


class Replica(PostgresHost):
    """A streaming standby. Its `application_name` at the primary is its name."""

    def __init__(self, *, primary: PostgresHost, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._primary = primary
        self.upstream = primary

    # Replay

    def pause_replay(self) -> None:
        """Stop replaying; WAL still arrives. Returns when nothing more will be replayed."""
        self.ask("SELECT pg_wal_replay_pause()")
        # While a delayed commit waits, the pause takes effect only when its time comes, before it is replayed.
        wait_until(self._is_paused_or_delayed, timeout=10, what=f"{self.name} to pause replay")

    def resume_replay(self) -> None:
        """Replay again. Does not wait; see `wait_until_caught_up()`."""
        self.ask("SELECT pg_wal_replay_resume()")

    def delay_replay(self, seconds: float) -> None:
        """Replay each commit `seconds` after it was made on the primary; 0 turns the delay off. Returns when it is in force."""
        self.alter_system("recovery_min_apply_delay", round(seconds * 1000))

    @property
    def replay_lsn(self) -> int:
        """The position that has been replayed."""
        return parse_lsn(self.ask("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text"))

    def wait_for_lsn(self, lsn: int | str, timeout: float = 30.0) -> None:
        """Wait until the position `lsn` (an integer or `X/Y`) has been replayed."""
        wanted = parse_lsn(lsn) if isinstance(lsn, str) else lsn
        wait_until(
            lambda: self.replay_lsn >= wanted,
            timeout=timeout,
            what=lambda: f"{self.name} to replay {format_lsn(wanted)}; it has replayed {format_lsn(self.replay_lsn)}",
        )

    def wait_until_caught_up(self, timeout: float = 30.0) -> None:
        """Wait until everything that its upstream has written so far is replayed."""
        self.wait_for_lsn(self.upstream.write_lsn, timeout)

    # Role

    def promote(self) -> None:
        """Make this host writable on a timeline of its own; its former primary is not told. `rebuild()` undoes it."""
        if not self.ask("SELECT pg_promote(true, 30)"):
            raise ClusterError(f"{self.name} was not promoted within 30 s")

    def follow(self, host: PostgresHost, *, wait_until_streaming: bool = True) -> None:
        """Stream from `host` from now on. A replica that has replayed past a fork cannot: it needs `rebuild()`."""
        if not self.is_in_recovery:
            raise ClusterError(f"{self.name} was promoted and can follow nobody before rebuild()")
        self.upstream = host
        self.configure()
        self.reload()
        if wait_until_streaming:
            wait_until(lambda: self.is_streaming, timeout=START_SECONDS, what=f"{self.name} to stream from {host.name}")

    def rebuild(self, source: PostgresHost | None = None) -> None:
        """Replace this host's data by a fresh base backup of `source` (default: the cluster's primary) and start it."""
        self.upstream = source or self._primary
        if self.is_running:
            self.stop("immediate")
        shutil.rmtree(self.data_folder, ignore_errors=True)
        origin = ("-h", self.upstream.host, "-p", str(self.upstream.port), "-U", SUPERUSER)
        manner = ("-X", "stream", "-c", "fast", "--no-sync", "--no-manifest")
        arguments = [self._binaries.program("pg_basebackup"), "-D", str(self.data_folder), *origin, *manner]
        self._run_tool(arguments, PGPASSWORD=self.password)
        # The primary's own changes with ALTER SYSTEM came along.
        self._account.create_file(self.data_folder / "postgresql.auto.conf")
        self._become_standby()
        self.start()

    def copy_from(self, stopped: PostgresHost) -> None:
        """Become a copy of a host that has never run: quicker than a base backup, and needs no server."""
        self._run_tool(["cp", "-a", str(stopped.data_folder), str(self.data_folder)])
        self._become_standby()

    @property
    def is_streaming(self) -> bool:
        """Whether WAL arrives from the upstream that this replica should follow."""
        receiving = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = %s)"
        return bool(self.ask(receiving, (self.upstream.port,)))

    def heal(self) -> None:
        """Undo what a test may have done, quickly where nothing was done; the primary must be well."""
        if not self.is_running:
            self._revive()
        if self.upstream is not self._primary or not self.is_in_recovery:
            self.rebuild()
        self.resume_replay()
        self.reset_system()
        try:
            wait_until(lambda: self.is_streaming, timeout=3, what=f"{self.name} to stream from {self._primary.name}")
            self.wait_until_caught_up()
        except TimeoutError:
            self.rebuild()
            self.wait_until_caught_up()

    def _become_standby(self) -> None:
        self.configure()
        self._account.create_file(self.data_folder / "standby.signal")

    def _revive(self) -> None:
        try:
            self.start()
        except (ServerFailed, TimeoutError):
            self.rebuild()

    def _all_settings(self) -> dict[str, str]:
        address = f"host={self.upstream.host} port={self.upstream.port} user={SUPERUSER} password={self.password}"
        return {**super()._all_settings(), "primary_conninfo": f"{address} application_name={self.name}"}

    def _is_paused_or_delayed(self) -> bool:
        return bool(self.ask("SELECT pg_get_wal_replay_pause_state() = 'paused' OR current_setting('recovery_min_apply_delay') <> '0'"))


def _quoted(value: object) -> str:
    escaped = str(value).replace("'", "''")
    return f"'{escaped}'"


def _locale_options(major_version: int) -> list[str]:
    """Return `initdb` options for a database that knows all letters and sorts the same on every machine."""
    if major_version >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    # Nothing promises that an older system has this locale.
    knows_letters = Path("/usr/lib/locale/C.utf8").is_dir()
    return ["--locale=C", *(["--lc-ctype=C.UTF-8"] if knows_letters else [])]
