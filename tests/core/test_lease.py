"""What a lease rests on is renewed by every change that routing goes by, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_pglb.core.decision import Decision, Reason
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound, ClusterSession

GOES_BY = ("bound", "wrote", "loaded", "store_down", "chosen", "excluded", "stays", "without_primary", "look_again_at")


class Watched(ClusterSession):
    """Remembers what there was to go by when it was touched last."""

    __slots__ = ("when_touched",)

    def touch(self) -> None:
        super().touch()
        self.when_touched = gone_by(self)


def gone_by(cluster: ClusterSession) -> list[object]:
    return [getattr(cluster, name) for name in GOES_BY]


def under_way() -> Watched:
    """Return the dealings of a unit of work that has read on one replica, and not on one that was behind."""
    cluster = Watched("default")
    cluster.bind(Bound(Pointer(1, 5)))
    cluster.exclude("replica3", Reason.BEHIND)
    cluster.choose("replica1")
    cluster.prove("replica1", 7, 5)
    cluster.loaded = True
    return cluster


def who_wrote() -> ClusterSession:
    cluster = ClusterSession("default")
    cluster.note_write()
    return cluster


CHANGES: dict[str, Callable[[ClusterSession], object]] = {
    "bind": lambda cluster: cluster.bind(Bound(Pointer(1, 6))),
    "note_write": lambda cluster: cluster.note_write(),
    "note_unknown_outcome": lambda cluster: cluster.note_unknown_outcome(),
    "follow": lambda cluster: cluster.follow(who_wrote()),
    "look_again": lambda cluster: cluster.look_again(9.0),
    "ask_again": lambda cluster: cluster.ask_again(),
    "exclude": lambda cluster: cluster.exclude("replica1", Reason.BEHIND),
    "choose": lambda cluster: cluster.choose("replica2"),
    "stay_on_primary": lambda cluster: cluster.stay_on_primary(Reason.BEHIND),
    "do_without_primary": lambda cluster: cluster.do_without_primary(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_makes_a_new_state(change: str) -> None:
    """And not before it is complete: another thread may ask the rules in between."""
    cluster = under_way()
    state, before = cluster.state, gone_by(cluster)
    CHANGES[change](cluster)
    assert cluster.state is not state
    assert gone_by(cluster) != before
    assert cluster.when_touched == gone_by(cluster)


def test_return_to_a_replica_makes_a_new_state() -> None:
    """The unit of work had been answered by the primary for want of one."""
    cluster = under_way()
    cluster.stay_on_primary(Reason.BEHIND)
    state = cluster.state
    cluster.return_to("replica1", 8, 6)
    assert cluster.state is not state
    assert cluster.when_touched == gone_by(cluster)


def test_what_changes_nothing_keeps_the_state() -> None:
    """A page's reads, and what binds it already, void no lease."""
    cluster = under_way()
    state = cluster.state
    cluster.bind(Bound(Pointer(1, 5)))
    cluster.follow(ClusterSession("default"))
    cluster.choose("replica1")
    cluster.prove("replica1", 8, 9)
    cluster.count(Decision("replica1", Reason.REPLICA))
    assert cluster.state is state


def test_first_choice_keeps_the_state() -> None:
    """The lease on it is made of the state from before the rules were asked."""
    cluster = ClusterSession("default")
    state = cluster.state
    cluster.choose("replica1")
    assert cluster.state is state
