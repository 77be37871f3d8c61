from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from django_pglb.core.decision import Decision, Reason
from django_pglb.core.lsn import SEVERAL_SYSTEMS, UNKNOWN_SYSTEM, Pointer, marks_of, seen_lsn
from django_pglb.core.policy import MAX_ASKED_IN_VAIN, Scope, any_replica, pick, replica_or_primary, standing_rule, unit_rule
from django_pglb.core.routing_session import Bound, ClusterSession, RoutingSession
from django_pglb.core.topology import Host, HostState, Sample, Topology

NOW = 1000.0


def host(alias: str, lsn: int = 100, *, state: HostState = HostState.ONLINE, delay: float = 0.0, weight: float = 1.0) -> Host:
    return Host(alias=alias, state=state, replay_lsn=lsn, delay_seconds=delay, sampled_at=NOW, weight=weight)


def topology(*replicas: Host, timeline: int = 1) -> Topology:
    primary = Host(alias="default", is_primary=True, state=HostState.ONLINE, timeline=timeline)
    return Topology(primary=primary, replicas=replicas, samples=(Sample(NOW - 1, 100),))


def bound_to(lsn: int, *, written_at: float = NOW, timeline: int = 1, pinned_until: float = 0.0) -> ClusterSession:
    cluster = ClusterSession("default")
    cluster.bound = Bound(Pointer(timeline, lsn, written_at), pinned_until)
    return cluster


def idle(alias: str) -> int:
    return 0


@pytest.mark.parametrize(
    ("scope", "in_transaction", "expected"),
    [
        (Scope(), False, Reason.OUTSIDE_SESSION),
        (Scope(forced="replicas"), True, Reason.OUTSIDE_SESSION),
        (Scope(RoutingSession(), forced="primary"), True, Reason.FORCED_PRIMARY),
        (Scope(RoutingSession(), forced="replicas"), True, Reason.TRANSACTION),
        (Scope(RoutingSession()), False, None),
    ],
)
def test_standing_rules_come_in_order(scope: Scope, in_transaction: bool, expected: Reason | None) -> None:
    """Nothing that the unit of work did is asked before these."""
    assert standing_rule(scope, in_transaction=in_transaction) is expected


def test_rules_of_the_unit_come_in_order() -> None:
    """The instance's origin comes before the unit's writes, and those before its method."""
    routing, cluster = RoutingSession(safe_method=False), ClusterSession("default")
    scope = Scope(routing)
    assert unit_rule(scope, routing, cluster) is Reason.UNSAFE_METHOD
    assert unit_rule(scope._replace(replica_reads=True), routing, cluster) is None
    cluster.note_write()
    assert unit_rule(scope, routing, cluster) is Reason.WROTE
    assert unit_rule(scope, routing, cluster, from_primary=True) is Reason.INSTANCE


def test_one_unit_of_work_reads_one_replica() -> None:
    """The first choice holds, however often the question is asked."""
    cluster, hosts = ClusterSession("default"), topology(*(host(f"replica{n}") for n in range(9)))
    first = replica_or_primary(cluster, hosts, NOW, idle)
    assert first.reason is Reason.REPLICA
    assert {replica_or_primary(cluster, hosts, NOW, idle) for _ in range(50)} == {first}


def test_a_replica_behind_the_pointer_is_not_chosen() -> None:
    """Of two online replicas the one that has reached the pointer answers."""
    hosts = topology(host("behind", 100, delay=5), host("there", 200))
    assert replica_or_primary(bound_to(150), hosts, NOW, idle) == Decision("there", Reason.REPLICA)


def test_reader_stays_on_the_primary_once_no_replica_was_there() -> None:
    """The reason stays too, even when a replica catches up meanwhile: a page shows one point in time."""
    cluster = bound_to(150)
    assert replica_or_primary(cluster, topology(host("replica1", 100, delay=5)), NOW, idle) == Decision("default", Reason.BEHIND)
    assert replica_or_primary(cluster, topology(host("replica1", 200)), NOW, idle) == Decision("default", Reason.BEHIND)


@pytest.mark.parametrize("state", [state for state in HostState if state is not HostState.ONLINE])
def test_a_host_that_is_not_online_is_never_chosen(state: HostState) -> None:
    """Without an online replica the primary answers, and the reason says that none is there."""
    assert replica_or_primary(ClusterSession("default"), topology(host("replica1", state=state)), NOW, idle).reason is Reason.NO_REPLICA


def test_a_delayed_replica_is_guessed_to_have_replayed_what_is_older_than_its_delay() -> None:
    """The topology extrapolates: half a second of delay, one second of age."""
    hosts = topology(host("replica1", 100, delay=0.5))
    assert replica_or_primary(bound_to(150, written_at=NOW - 1), hosts, NOW, idle).reason is Reason.REPLICA
    assert replica_or_primary(bound_to(150, written_at=NOW - 0.2), hosts, NOW, idle).reason is Reason.BEHIND


def test_chosen_replica_is_left_when_the_pointer_moves_beyond_it() -> None:
    """What the session reveals later may bind the reader more than the first read was bound."""
    cluster, hosts = ClusterSession("default"), topology(host("replica1", 100, delay=9))
    assert replica_or_primary(cluster, hosts, NOW, idle).alias == "replica1"
    cluster.bound = Bound(Pointer(1, 150, NOW))
    assert replica_or_primary(cluster, hosts, NOW, idle) == Decision("default", Reason.BEHIND)


def test_what_the_chosen_replica_has_proved_outweighs_the_guess() -> None:
    """A replica that has shown the position goes on answering although its last probe was short of it."""
    cluster, hosts = bound_to(150, written_at=NOW - 20), topology(host("replica1", 100, delay=9))
    assert replica_or_primary(cluster, hosts, NOW, idle).alias == "replica1"
    cluster.prove("replica1", serial=1, lsn=160)
    cluster.bound = Bound(Pointer(1, 160, NOW))
    assert replica_or_primary(cluster, hosts, NOW, idle) == Decision("replica1", Reason.REPLICA)


def test_pinned_reader_reads_from_the_primary() -> None:
    """While nothing can be proved, no replica is asked to prove it."""
    assert replica_or_primary(bound_to(1, pinned_until=NOW + 5), topology(host("replica1")), NOW, idle).reason is Reason.BEHIND
    assert replica_or_primary(bound_to(1, pinned_until=NOW - 5), topology(host("replica1")), NOW, idle).reason is Reason.REPLICA


@pytest.mark.parametrize(
    ("pointer_of", "primary_of", "replica_of", "expected"),
    [
        (1, 1, 1, Reason.REPLICA),
        (1, 2, 2, Reason.BEHIND),
        (SEVERAL_SYSTEMS, 2, 2, Reason.BEHIND),
        (UNKNOWN_SYSTEM, 2, 2, Reason.REPLICA),
        (1, None, None, Reason.REPLICA),
        # The primary was seen by nobody yet.
        (1, None, 2, Reason.BEHIND),
        # Without a sign, and with one, as PostgreSQL shows 64 bits.
        (2**64 - 5, -5, -5, Reason.REPLICA),
    ],
)
def test_pointer_of_another_system_is_proved_by_no_replica(
    pointer_of: int, primary_of: int | None, replica_of: int | None, expected: Reason
) -> None:
    """In a cluster that was made anew, positions of the old one say nothing; what does not say where it is from is compared."""
    cluster = ClusterSession("default")
    cluster.bound = Bound(Pointer(1, 1, NOW, pointer_of))
    primary = Host(alias="default", is_primary=True, state=HostState.ONLINE, timeline=1, system_identifier=primary_of)
    hosts = Topology(primary=primary, replicas=(replace(host("replica1"), system_identifier=replica_of),))
    assert replica_or_primary(cluster, hosts, NOW, idle).reason is expected


def test_pointer_of_another_timeline_is_proved_by_no_replica() -> None:
    """After a failover, positions of the old timeline say nothing about the new one."""
    assert replica_or_primary(bound_to(1, timeline=1), topology(host("replica1"), timeline=2), NOW, idle).reason is Reason.BEHIND


def test_wanted_replica_answers_if_it_will_do() -> None:
    """An alias that the caller named is taken when it is fit, and passed over when it is not."""
    hosts = topology(host("replica1", 200), host("replica2", 200), host("slow", 100, delay=9))
    assert replica_or_primary(bound_to(150), hosts, NOW, idle, wanted="replica2").alias == "replica2"
    assert replica_or_primary(bound_to(150), hosts, NOW, idle, wanted="slow").alias in {"replica1", "replica2"}


def test_failed_replicas_are_not_used_again_in_this_unit() -> None:
    """When all have failed the primary answers for want of a replica; when they were behind it says so."""
    hosts = topology(host("replica1"), host("replica2"))
    cluster = bound_to(50)
    cluster.exclude("replica1", Reason.FAILOVER)
    assert replica_or_primary(cluster, hosts, NOW, idle).alias == "replica2"
    cluster.exclude("replica2", Reason.FAILOVER)
    assert replica_or_primary(cluster, hosts, NOW, idle) == Decision("default", Reason.NO_REPLICA)
    behind = bound_to(50)
    behind.exclude("replica1", Reason.BEHIND)
    behind.exclude("replica2", Reason.BEHIND)
    assert replica_or_primary(behind, hosts, NOW, idle) == Decision("default", Reason.BEHIND)


BELIEVED = tuple(host(f"replica{number}", 200) for number in range(1, MAX_ASKED_IN_VAIN + 3))


def asked_in_vain(cluster: ClusterSession, hosts: Topology) -> int:
    """Return how many replicas are asked, all of which turn out to be behind, before the primary answers for that reason."""
    for asked in range(len(hosts.replicas) + 1):
        decision = replica_or_primary(cluster, hosts, NOW, idle)
        if decision.alias == "default":
            assert decision.reason is Reason.BEHIND
            return asked
        cluster.exclude(decision.alias, Reason.BEHIND)
    raise AssertionError("a replica was asked twice")


def test_only_so_many_replicas_are_asked_in_vain() -> None:
    """The primary answers after that and goes on answering, until a long unit of work looks again and may be deceived as often again."""
    cluster, hosts = bound_to(150), topology(*BELIEVED)
    assert asked_in_vain(cluster, hosts) == MAX_ASKED_IN_VAIN
    assert asked_in_vain(cluster, hosts) == 0
    cluster.look_again(NOW + 1)
    assert asked_in_vain(cluster, hosts) == MAX_ASKED_IN_VAIN


def test_every_replica_is_asked_when_there_is_no_primary() -> None:
    """Whether the checker knows that it is gone, or the unit of work has found out after asking as many as it may."""
    hosts = topology(*BELIEVED)
    assert asked_in_vain(bound_to(150), replace(hosts, primary=replace(hosts.primary, state=HostState.OFFLINE))) == len(BELIEVED)
    cluster = bound_to(150)
    assert asked_in_vain(cluster, hosts) == MAX_ASKED_IN_VAIN
    cluster.do_without_primary()
    assert asked_in_vain(cluster, hosts) == len(BELIEVED)


def test_replicas_that_failed_are_not_counted_as_asked_in_vain() -> None:
    """However many are dead, one that lives is asked."""
    cluster = bound_to(150)
    for dead in BELIEVED[:-1]:
        cluster.exclude(dead.alias, Reason.FAILOVER)
    assert replica_or_primary(cluster, topology(*BELIEVED), NOW, idle) == Decision(BELIEVED[-1].alias, Reason.REPLICA)


@pytest.mark.parametrize("wanted", [None, BELIEVED[-1].alias])
def test_a_replica_that_has_shown_the_pointer_answers_whoever_else_was_behind(wanted: str | None) -> None:
    """Also where the caller names one that nobody has asked yet: as many as may be were asked in vain."""
    cluster = bound_to(150)
    cluster.return_to("replica1", serial=1, lsn=150)
    for behind in BELIEVED[1 : 1 + MAX_ASKED_IN_VAIN]:
        cluster.exclude(behind.alias, Reason.BEHIND)
    assert replica_or_primary(cluster, topology(*BELIEVED), NOW, idle, wanted=wanted) == Decision("replica1", Reason.REPLICA)


def test_stale_reads_ignore_pointers_but_not_failures() -> None:
    """Any online replica will do, the same one for the whole unit, unless it failed this unit of work."""
    hosts, cluster = topology(host("replica1", 1, delay=9), host("replica2", 1, delay=9)), bound_to(150)
    first = any_replica(cluster, hosts, idle)
    assert first.reason is Reason.STALE_ALLOWED
    assert {any_replica(cluster, hosts, idle) for _ in range(30)} == {first}
    cluster.exclude(first.alias, Reason.FAILOVER)
    assert any_replica(cluster, hosts, idle).alias == ({"replica1", "replica2"} - {first.alias}).pop()


def test_the_less_busy_of_two_is_picked() -> None:
    """With two candidates the one with fewer reads in flight always wins."""
    busy = {"replica1": 3, "replica2": 1}
    assert {pick([host("replica1"), host("replica2")], busy.__getitem__).alias for _ in range(50)} == {"replica2"}


def test_weights_are_respected_when_idle() -> None:
    """A host of weight 3 gets about three times the reads of a host of weight 1."""
    counts = Counter(pick([host("light"), host("heavy", weight=3)], idle).alias for _ in range(4000))
    assert 2.4 < counts["heavy"] / counts["light"] < 3.8


def test_weights_are_respected_when_busy() -> None:
    """Four reads in flight on a host of weight 4 are less than two on a host of weight 1."""
    busy = {"light": 2, "heavy": 4}
    assert pick([host("light"), host("heavy", weight=4)], busy.__getitem__).alias == "heavy"


def test_replica_is_not_asked_for_more_than_its_last_look_found() -> None:
    """Seen on one of two that stand at the same position: who has seen it may have seen a record that only that one has shown."""
    first, second = (replace(host(alias, 96, delay=5), mark=mark) for alias, mark in marks_of(["replica1", "replica2"]).items())
    seen = seen_lsn(first.mark, replayed=96, received=200)
    assert {replica_or_primary(bound_to(seen), topology(first, second), NOW, idle) for _ in range(20)} == {
        Decision("replica1", Reason.REPLICA)
    }
    past = replace(second, replay_lsn=104)
    assert {replica_or_primary(bound_to(seen), topology(first, past), NOW, idle).alias for _ in range(50)} == {"replica1", "replica2"}


def test_replica_that_has_proved_only_what_was_seen_elsewhere_is_left() -> None:
    """The same for the one that answers already."""
    first, second = (replace(host(alias, 96, delay=5), mark=mark) for alias, mark in marks_of(["replica1", "replica2"]).items())
    cluster = bound_to(seen_lsn(first.mark, replayed=96, received=200))
    cluster.choose("replica2")
    cluster.prove("replica2", 1, 96)
    assert replica_or_primary(cluster, topology(first, second), NOW, idle) == Decision("replica1", Reason.REPLICA)
    cluster.choose("replica2")
    cluster.prove("replica2", 1, 104)
    assert replica_or_primary(cluster, topology(first, second), NOW, idle) == Decision("replica2", Reason.REPLICA)
