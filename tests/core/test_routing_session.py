"""What one unit of work remembers."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from django_pglb.core.decision import Decision, DecisionCount, Reason
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import UNBOUND, Bound, ClusterSession, RoutingSession

# No other test's.
TIMELINE = 77
TIMES = st.integers(0, 10**6).map(float)
BOUNDS = st.builds(Bound, st.none() | st.builds(Pointer, st.integers(1, 3), st.integers(0, 2**64 - 1), TIMES), TIMES)


@given(BOUNDS, BOUNDS)
def test_merging_bounds_commutes_repeats_harmlessly_and_never_goes_back(a: Bound, b: Bound) -> None:
    """Whoever is bound by both is bound by the later of each part."""
    merged = a.merged(b)
    assert merged == b.merged(a) == merged.merged(a)
    assert a.merged(UNBOUND) == a
    assert merged.pinned_until >= a.pinned_until


def test_shifting_to_another_clock_and_back_changes_nothing() -> None:
    """Only times move, and those that are absent stay absent."""
    bound = Bound(Pointer(1, 5, 100.0), 200.0)
    assert bound.shifted(50) == Bound(Pointer(1, 5, 150.0), 250.0)
    assert bound.shifted(50).shifted(-50) == bound
    assert Bound(Pointer(1, 5)).shifted(50) == Bound(Pointer(1, 5))


def test_decisions_are_counted_by_alias_and_reason() -> None:
    """The tally of a unit of work keeps the order of first use."""
    routing = RoutingSession()
    for decision in (Decision("replica1", Reason.REPLICA), Decision("default", Reason.WRITE), Decision("replica1", Reason.REPLICA)):
        routing.cluster("default").count(decision)
    assert routing.decisions() == (DecisionCount("replica1", Reason.REPLICA, 2), DecisionCount("default", Reason.WRITE, 1))


def test_looking_again_forgets_what_may_have_changed_and_keeps_what_binds() -> None:
    """Answers of the store and opinions of hosts grow old; what must be seen, the replica that has it, and what is not saved do not."""
    cluster = ClusterSession("default")
    cluster.bind(Bound(Pointer(1, 5)))
    cluster.see(7, Pointer(1, 6))
    cluster.prove("replica1", 7, 5)
    cluster.loaded, cluster.asked, cluster.store_down = True, frozenset({("user", "1")}), True
    cluster.exclude("replica2", Reason.BEHIND)
    cluster.stay_on_primary(Reason.BEHIND)
    cluster.choose("replica1")
    cluster.note_write()
    cluster.look_again(100.0)
    assert (cluster.loaded, cluster.asked, cluster.store_down, cluster.excluded, cluster.stays) == (False, frozenset(), False, {}, None)
    assert (cluster.bound, cluster.seen, cluster.proofs) == (Bound(Pointer(1, 5)), {7: Pointer(1, 6)}, {7: 5})
    assert (cluster.chosen, cluster.wrote, cluster.must_save, cluster.look_again_at) == ("replica1", True, True, 100.0)


def test_saved_write_is_left_behind_unless_something_keeps_it() -> None:
    """A later write, one of the unit around, or a sight whose position is not known yet."""
    cluster = ClusterSession("default")
    cluster.note_write()
    cluster.saved = cluster.written
    assert (cluster.wrote, cluster.must_save) == (True, False)
    cluster.look_again(1.0, may_leave=False)
    assert cluster.wrote
    cluster.saw_unknown = True
    cluster.stay_on_primary(Reason.BEHIND)
    cluster.look_again(1.0)
    assert (cluster.wrote, cluster.stays) == (True, Reason.BEHIND)
    cluster.saw_unknown = False
    cluster.note_write()
    cluster.look_again(1.0)
    assert cluster.wrote
    cluster.saved = cluster.written
    cluster.look_again(1.0)
    assert not cluster.wrote


def test_threads_that_bind_at_once_lose_nothing() -> None:
    """Whatever any of them has learned binds."""
    cluster, together = ClusterSession("default"), threading.Barrier(4)

    def bind(first: int) -> None:
        together.wait()
        for lsn in range(first, 2000, 4):
            cluster.bind(Bound(Pointer(1, lsn), float(2000 - lsn)))

    threads = [threading.Thread(target=bind, args=[first]) for first in range(4)]
    # So that they get into each other's way.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert cluster.bound == Bound(Pointer(1, 1999), 2000.0)


def test_many_inner_units_leave_no_trace_in_the_outer_one() -> None:
    """What binds it already is not remembered again."""
    outer = ClusterSession("default")
    for _ in range(1000):
        outer.bind(Bound(Pointer(1, 5), 7.0))
        outer.bind(UNBOUND)
    assert outer.bound == Bound(Pointer(1, 5), 7.0)
    assert len(gc.get_referents(outer)) == len(gc.get_referents(ClusterSession("default")))


def calls_of(function: Callable[[], object]) -> int:
    """Return how many functions `function` calls, of Python's or of C's."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_each_bind_costs_as_much_as_an_early_one() -> None:
    """Work and memory: the unit of work of a stream that writes is bound anew with each chunk."""
    cluster = ClusterSession("default")

    def bind_next() -> None:
        cluster.bind(Bound(Pointer(TIMELINE, (cluster.bound.pointer or Pointer(TIMELINE, 0)).lsn + 1)))

    bind_next()
    early = calls_of(bind_next)
    for _ in range(3000):
        bind_next()
    gc.collect()
    assert calls_of(bind_next) <= early
    assert len([bound for bound in gc.get_objects() if type(bound) is Bound and bound.pointer and bound.pointer.timeline == TIMELINE]) <= 2


def test_inner_unit_is_what_the_outer_one_is_and_tells_what_it_did() -> None:
    """The method and the view's transaction are the request's, and so are the answers."""
    outer, inner = RoutingSession(safe_method=False), RoutingSession()
    outer.view_atomic = frozenset({"default"})
    inner.inherit(outer)
    assert (inner.safe_method, inner.view_atomic) == (False, {"default"})
    for _ in range(2):
        inner.cluster("default").count(Decision("default", Reason.UNSAFE_METHOD))
    inner.bequeath(outer)
    assert outer.decisions() == (DecisionCount("default", Reason.UNSAFE_METHOD, 2),)
