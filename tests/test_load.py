"""Many clients at once, on a real web server: nobody reads before their own write, nothing fails, and the replicas do the reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from django_pglb.testing import Cluster, wait_until

from .fix_served import ServedSite
from .served.client import Device, Wire
from .served.history import Operation, find_violations, reads_after_own_write, reads_at_rest
from .served.load import Load, sign_in_everybody

SECONDS = 10.0
LEAST_BOUND_READS = 300
LEAST_SHARE_ON_REPLICAS = 0.9
# While replicas are slow or away by design, that they are used at all is what must show.
LEAST_SHARE_UNDER_TROUBLE = 0.5

# After a write a replica is passed over until a probe has shown the delay that it has: two intervals, and the probe's own way.
SETTLED_SECONDS = 3.0


@pytest.fixture(scope="module")
def devices(served_once: ServedSite) -> list[Device]:
    """Two signed-in devices of every user."""
    return sign_in_everybody(served_once.port)


def complaints(load: Load, *, delay: float, least_share: float = LEAST_SHARE_ON_REPLICAS) -> list[str]:
    """Return what the promise would not have allowed in this load, with replay delayed by `delay` seconds."""
    found = [*load.failures[:5], *(str(violation) for violation in find_violations(load.operations)[:5])]
    bound = bound_reads(load)
    if bound < LEAST_BOUND_READS:
        found.append(f"only {bound} reads of what the user had written were bound by a pointer")
    judged = reads_at_rest(load.operations, delay + SETTLED_SECONDS) if delay else load.reads
    share = share_on_replicas(judged)
    if len(judged) < 100 or share < least_share:
        found.append(f"replicas answered {share:.1%} of {len(judged)} reads that they could have answered")
    return found


def bound_reads(load: Load) -> int:
    """Return how many reads of what the user had written were bound by a pointer."""
    return sum(read.is_bound for read in reads_after_own_write(load.operations))


def workers(load: Load) -> set[int]:
    """Return the pids of the workers that have answered."""
    return {int(operation.worker) for operation in tuple(load.operations)}


def share_on_replicas(reads: Sequence[Operation]) -> float:
    return sum(read.is_on_replicas for read in reads) / max(1, len(reads))


def delay_replay(cluster: Cluster, seconds: float) -> None:
    cluster.wait_until_replicas_caught_up()
    for replica in cluster.replicas:
        replica.delay_replay(seconds)


def total(cluster: Cluster) -> int:
    """Return the sum of all registers, as the primary has it."""
    with cluster.primary.connect(dbname="site") as connection:
        row = connection.execute("SELECT sum(value)::int FROM served_register").fetchone()
        return int(row[0]) if row else 0


@pytest.mark.parametrize("delay", [0, 0.5, 10])
def test_nobody_misses_their_own_write_under_load(served: ServedSite, devices: list[Device], delay: float) -> None:
    """No read misses a write of the reader's, no request fails, no write is lost or run twice, and the servers confirm who answered."""
    delay_replay(served.cluster, delay)
    sum_before, reads_before = total(served.cluster), served.register_reads()
    with Load(served.port, devices) as load:
        load.run_for(SECONDS)
        wait_until(lambda: workers(load) == served.worker_pids() or bool(load.failures), timeout=60, what="every worker to have answered")
        wait_until(lambda: bound_reads(load) >= LEAST_BOUND_READS or bool(load.failures), timeout=120, what="enough reads to be bound")
    reads = {alias: count - reads_before[alias] for alias, count in served.register_reads().items()}
    assert complaints(load, delay=delay, least_share=LEAST_SHARE_UNDER_TROUBLE if delay else LEAST_SHARE_ON_REPLICAS) == []
    assert total(served.cluster) - sum_before == len(load.writes)
    answered = {alias: sum(read.aliases[-1] == alias for read in load.reads) for alias in reads}
    assert reads["default"] == answered["default"]
    # A replica may run a read whose proof then falls short.
    assert all(reads[alias] >= answered[alias] > 0 for alias in ("replica1", "replica2"))


def load_on_worse_site(cluster: Cluster, devices: list[Device], environment: dict[str, str], until: Callable[[Load], bool]) -> Load:
    """Return what the same load has seen, with replay delayed by 0.5 s, on a site that was given this environment."""
    with ServedSite(cluster, environment=environment) as site:
        delay_replay(cluster, 0.5)
        with Load(site.port, devices) as load:
            wait_until(lambda: until(load) or bool(load.failures), timeout=120, what="the load to see what it must")
    assert load.failures == []
    assert bound_reads(load) == 0
    return load


def test_load_sees_that_nobody_is_bound(served_cluster: Cluster, devices: list[Device]) -> None:
    """Without pointers somebody reads before their own write, and the checker of the history says so."""
    environment = {"SERVED_CONSISTENCY": "eventual"}
    load = load_on_worse_site(served_cluster, devices, environment, lambda load: bool(find_violations(tuple(load.operations))))
    assert any("had been acknowledged" in complaint for complaint in complaints(load, delay=0.5))


def test_load_sees_that_the_replicas_are_spared(served_cluster: Cluster, devices: list[Device]) -> None:
    """Without the router no read is stale, and none is on a replica."""
    load = load_on_worse_site(served_cluster, devices, {"SERVED_ROUTER": ""}, lambda load: len(load.reads) > 200)
    assert find_violations(load.operations) == []
    assert share_on_replicas(load.reads) == 0.0
    assert any("replicas answered 0.0%" in complaint for complaint in complaints(load, delay=0))


def test_writer_waits_for_replicas_and_nobody_else_does(served: ServedSite, devices: list[Device]) -> None:
    """With 10 s delay and a 2-second-old write the user reads the primary (behind), on both devices; everybody else reads replicas."""
    delay_replay(served.cluster, 10)
    first, second, *others = devices
    with Wire(served.port) as wire:
        written = wire.request("POST", "/register/", first).body["value"]
        time.sleep(2)
        before = served.register_reads()
        own = [wire.request("GET", "/register/", device) for device in (first, second) * 5]
        strangers = [wire.request("GET", "/register/", device) for device in others]
    after = served.register_reads()
    assert {answer.body["value"] for answer in own} == {written}
    assert {(answer.aliases[-1], answer.reasons[-1]) for answer in own} == {("default", "behind")}
    assert {reason for answer in strangers for reason in answer.reasons} == {"replica"}
    assert after["default"] - before["default"] == len(own)
    assert sum(after[alias] - before[alias] for alias in ("replica1", "replica2")) == len(strangers)


def test_killed_replica_fails_no_request(served: ServedSite, devices: list[Device]) -> None:
    """A replica dies by SIGKILL under load and nobody notices; when it is back it answers again."""
    replica = served.cluster.replicas[0]

    def reads_of(alias: str, since: float) -> int:
        return sum(alias in read.aliases for read in load.reads if read.started > since)

    with Load(served.port, devices) as load:
        wait_until(lambda: reads_of("replica1", 0) > 100, timeout=20, what="the replica to answer reads")
        replica.kill()
        killed_at = time.monotonic()
        wait_until(lambda: reads_of("replica2", killed_at) > 300, timeout=20, what="the other replica to answer reads")
        dead_until = time.monotonic()
        replica.start()
        back_at = time.monotonic()
        wait_until(lambda: reads_of("replica1", back_at) > 100, timeout=20, what="the revived replica to answer reads")
        wait_until(lambda: bound_reads(load) >= LEAST_BOUND_READS or bool(load.failures), timeout=120, what="enough reads to be bound")
    # For as long as one of two is dead or catching up, more writers find no replica that is there yet.
    assert complaints(load, delay=0, least_share=LEAST_SHARE_UNDER_TROUBLE) == []
    assert not [read for read in load.reads if "replica1" in read.aliases and killed_at < read.started and read.ended < dead_until]
    with served.cluster.replicas[0].connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_stat_statements WHERE query LIKE '%served\\_register%'").fetchone()


# --- The checker of histories ---


def read(started: float, value: int, user: int = 1) -> Operation:
    return Operation(user=user, is_write=False, started=started, ended=started + 0.1, value=value)


def write(started: float, ended: float, value: int, user: int = 1) -> Operation:
    return Operation(user=user, is_write=True, started=started, ended=ended, value=value)


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param([write(1, 2, 7), read(3, 7)], 0, id="read own write"),
        pytest.param([write(1, 2, 7), read(3, 6)], 1, id="read before own write"),
        pytest.param([write(1, 2, 7), read(1.9, 6)], 0, id="read began before the write was acknowledged"),
        pytest.param([write(1, 2, 7, user=2), read(3, 6)], 0, id="write of somebody else"),
        pytest.param([write(1, 4, 7), write(2, 3, 8), read(5, 7)], 1, id="later write acknowledged first"),
        pytest.param([read(3, 6), read(3, 8), write(1, 2, 7)], 1, id="in any order"),
    ],
)
def test_history_checker_finds_reads_of_the_past(operations: list[Operation], expected: int) -> None:
    """A read is wrong if it shows less than what the same user's writes had been acknowledged with before it began."""
    assert len(find_violations(operations)) == expected


def test_reads_after_own_write_are_those_that_began_after_an_answer() -> None:
    """Neither reads that overlap the user's first write, nor those of users who wrote nothing."""
    operations = [read(1, 0), write(2, 3, 1), read(2.5, 1), read(4, 1), read(4, 0, user=2)]
    assert reads_after_own_write(operations) == [read(4, 1)]


def test_reads_at_rest_are_those_without_a_write_close_by() -> None:
    """A write of the same user counts while it runs and for the given time after."""
    quiet, during, soon_after = read(1, 0), read(5.5, 0), read(8, 1)
    later, stranger = read(20, 1), read(5.5, 0, user=2)
    operations = [quiet, write(5, 6, 1), during, soon_after, later, stranger]
    assert set(reads_at_rest(operations, 3)) == {quiet, later, stranger}
