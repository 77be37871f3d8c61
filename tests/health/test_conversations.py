"""Who waits for a host that does not answer is let go, and nobody else is."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from django_pglb.core.topology import HostState
from django_pglb.health.conversations import Conversations
from django_pglb.testing import Cluster, wait_until

from .aids import checking, host_of, targets_of, wait_for_states, wait_until_online


@pytest.fixture
def conversations() -> Conversations:
    return Conversations()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a conversation."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def open_descriptors() -> list[int]:
    return [int(path.name) for path in Path("/dev/fd").iterdir()]


def descriptors_of(end: socket.socket) -> int:
    """Return how many descriptors of this process are of the same conversation. Other threads and finalizers may open and close theirs."""
    wanted, count = os.fstat(end.fileno()), 0
    for descriptor in open_descriptors():
        with contextlib.suppress(OSError):  # the directory's own
            count += os.path.samestat(os.fstat(descriptor), wanted)
    return count


def test_severed_conversation_ends_at_both_ends(conversations: Conversations, pair: tuple[socket.socket, socket.socket]) -> None:
    """Once: afterwards there is nothing left to sever."""
    mine, theirs = pair
    conversation = conversations.register("replica1", mine.fileno())
    assert conversations.sever("replica2") == 0
    assert (conversations.sever("replica1"), conversations.sever("replica1")) == (1, 0)
    assert (mine.recv(1), theirs.recv(1)) == (b"", b"")
    conversation.close()


def test_closed_handle_leaves_the_conversation_alone(conversations: Conversations, pair: tuple[socket.socket, socket.socket]) -> None:
    """It only releases the duplicate, and may be closed twice."""
    mine, theirs = pair
    conversation = conversations.register("replica1", mine.fileno())
    assert descriptors_of(mine) == 2
    conversation.close()
    conversation.close()
    assert (conversations.sever("replica1"), descriptors_of(mine)) == (0, 1)
    mine.send(b"x")
    assert theirs.recv(1) == b"x"


def test_conversation_ends_when_its_owner_closes_and_releases_it(
    conversations: Conversations, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The duplicate is all that kept it open."""
    mine, theirs = pair
    conversation = conversations.register("replica1", mine.fileno())
    mine.close()
    conversation.close()
    assert theirs.recv(1) == b""


def test_forgotten_connection_leaks_no_descriptor(cluster: Cluster, conversations: Conversations) -> None:
    """Closed or not, released or not: nothing stays but garbage that is collected."""
    before = len(open_descriptors())
    for _ in range(10):
        with cluster.replicas[0].connect() as connection:
            conversations.register("replica1", connection.fileno(), connection)
            assert conversations.count("replica1") == 1
        del connection
        gc.collect()
        assert conversations.count("replica1") == 0
    assert len(open_descriptors()) < before + 10


def test_forgotten_handle_leaks_no_descriptor(conversations: Conversations, pair: tuple[socket.socket, socket.socket]) -> None:
    """A handle that nobody holds is released."""
    conversations.register("replica1", pair[0].fileno())
    assert conversations.count("replica1") == 0


def test_descriptors_that_are_reused_while_severing_cut_nobody_else(cluster: Cluster, conversations: Conversations) -> None:
    """Connections to the replica come and go, severed all the time, while others take the numbers that become free."""
    over = threading.Event()
    reused: set[int] = set()
    used_by_replica: set[int] = set()

    def come_and_go() -> int:
        count = 0
        while not over.is_set():
            try:
                with cluster.replicas[0].connect() as connection:
                    used_by_replica.add(connection.fileno())
                    conversation = conversations.register("replica1", connection.fileno())
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                count += 1
            finally:
                # Late: by now the number may be somebody else's.
                time.sleep(0.001)
                conversation.close()
        return count

    def live_undisturbed() -> int:
        count = 0
        while not over.is_set():
            with cluster.primary.connect() as connection:
                if connection.fileno() in used_by_replica:
                    reused.add(connection.fileno())
                for _ in range(5):
                    connection.execute("SELECT 1")
            count += 1
        return count

    def sever_all_the_time() -> int:
        count = 0
        while not over.is_set():
            count += conversations.sever("replica1")
            time.sleep(0.002)
        return count

    with ThreadPoolExecutor(8) as pool:
        disturbed = [pool.submit(come_and_go) for _ in range(3)]
        undisturbed = [pool.submit(live_undisturbed) for _ in range(3)]
        severing = pool.submit(sever_all_the_time)
        wait_until(lambda: len(reused) >= 3 or any(task.done() for task in undisturbed), timeout=60, what="numbers to be reused")
        time.sleep(3)
        over.set()
        assert all(task.result() > 0 for task in undisturbed)
        assert sum(task.result() for task in disturbed) > 0
        assert severing.result() > 50
    assert len(reused) >= 3


def test_forked_child_drops_its_parents_conversations_and_ends_none(
    conversations: Conversations, pair: tuple[socket.socket, socket.socket]
) -> None:
    """In the child nothing is left to sever; the parent's goes on."""
    mine, theirs = pair
    conversation = conversations.register("replica1", mine.fileno())
    child = os.fork()
    if not child:
        signal.alarm(60)
        left = descriptors_of(mine) - 1 + conversations.sever("replica1")
        conversation.close()
        os._exit(left or descriptors_of(mine) - 1)
    assert os.waitpid(child, 0)[1] == 0
    mine.send(b"x")
    assert theirs.recv(1) == b"x"
    assert conversations.sever("replica1") == 1


# --- With the checker ---


def test_read_that_hangs_on_a_frozen_replica_is_let_go(healed_cluster: Cluster, conversations: Conversations) -> None:
    """By the look that got no answer, and so is a read that was sent when the replica was offline already."""
    replica = healed_cluster.replicas[0]
    with checking(targets_of(healed_cluster), check_timeout=1, on_offline=conversations.sever) as checker, ThreadPoolExecutor() as pool:
        wait_until_online(checker)
        connections = [replica.connect() for _ in range(2)]
        handles = [conversations.register("replica1", connection.fileno(), connection) for connection in connections]
        replica.freeze()
        first = pool.submit(connections[0].execute, "SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            first.result(timeout=30)
        assert host_of(checker, "replica1").state is HostState.OFFLINE
        again = conversations.register("replica1", connections[1].fileno(), connections[1])
        wait_until(lambda: not conversations.count("replica1"), timeout=30, what="the next look to sever what came later")
        for handle in (*handles, again):
            handle.close()
        replica.thaw()
        for connection in connections:
            connection.close()


def test_failed_request_and_full_server_sever_nobody(healed_cluster: Cluster) -> None:
    """The one says nothing of the others, and a server that refuses new connections still answers the old ones."""
    severed: list[str] = []
    replica = healed_cluster.replicas[0]
    targets = targets_of(healed_cluster, user="limited")
    healed_cluster.create_role("limited")
    healed_cluster.wait_until_replicas_caught_up()
    with checking(targets, on_offline=severed.append) as checker:
        wait_until_online(checker)
        checker.report_failure("replica1", "a request failed")
        wait_until_online(checker)
        healed_cluster.primary.ask("ALTER ROLE limited CONNECTION LIMIT 0")
        healed_cluster.wait_until_replicas_caught_up()
        replica.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'limited'")
        wait_for_states(checker, replica1=HostState.OFFLINE)
        assert host_of(checker, "replica1").why.startswith("too many connections")
        assert severed == []
        replica.kill()
        wait_until(lambda: "replica1" in severed, timeout=20, what="a dead server's connections to be severed")
    healed_cluster.primary.ask("ALTER ROLE limited CONNECTION LIMIT -1")


def test_primary_is_never_severed_and_a_failing_hook_harms_nobody(healed_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """A write whose answer is late must not become one whose outcome is unknown; what the hook raises is logged."""
    severed: list[str] = []

    def fail(alias: str) -> None:
        severed.append(alias)
        raise ValueError("a hook's own trouble")

    with checking(targets_of(healed_cluster), on_offline=fail) as checker:
        wait_until_online(checker)
        healed_cluster.primary.kill()
        healed_cluster.replicas[0].kill()
        wait_for_states(checker, primary=HostState.OFFLINE, replica1=HostState.OFFLINE, replica2=HostState.ONLINE)
        wait_until(lambda: len(severed) >= 2, timeout=20, what="two looks that failed")
    assert set(severed) == {"replica1"}
    assert "a hook's own trouble" in caplog.text
