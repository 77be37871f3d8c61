"""A unit of work that lasts: it learns what its user has written elsewhere meanwhile, and need not stay on the primary for ever."""

from __future__ import annotations

from typing import Any

import pytest

from django_pglb import export_pointer, routing_session, use_primary
from django_pglb.context import open_routing
from django_pglb.core.decision import Decision, Reason
from django_pglb.core.routing_session import RoutingSession
from django_pglb.health.clock import now
from django_pglb.placement import place_again
from django_pglb.pointers import save_now
from django_pglb.testing import wait_until

from .fix_site import Site
from .guestbook.models import Entry
from .test_costs import redis_commands

ANN = ("test", "ann")


def read(routing: RoutingSession) -> tuple[str | None, Decision]:
    """Return the newest text, and where it was read and why."""
    before = set(routing.decisions())
    entry = Entry.objects.order_by("-pk").first()
    (counted,) = set(routing.decisions()) - before
    return entry and entry.text, Decision(counted.alias, counted.reason)


def write_elsewhere(text: str) -> None:
    """Write as another device of the same user does: in a unit of work of its own."""
    with open_routing(None), routing_session(identity=ANN):
        Entry.objects.create(text=text)


def wait_until_old(routing: RoutingSession) -> None:
    wait_until(lambda: now() >= routing.cluster("default").look_again_at, timeout=20, what="the unit to be older than an interval")


def test_long_unit_sees_what_another_device_wrote_meanwhile(site: Site) -> None:
    """A poll that began on a replica turns to the primary once its user has written elsewhere, without a new request."""
    with routing_session(identity=ANN) as routing:
        text, decision = read(routing)
        assert text is None
        assert decision.reason is Reason.REPLICA
        for replica in site.cluster.replicas:
            replica.pause_replay()
        write_elsewhere("from the phone")
        wait_until_old(routing)
        assert read(routing) == ("from the phone", Decision("default", Reason.BEHIND))


def test_long_unit_leaves_the_primary_when_the_replicas_have_caught_up(site: Site) -> None:
    """It was answered there for want of a replica, and later there is one."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    write_elsewhere("x")
    with routing_session(identity=ANN) as routing:
        assert read(routing) == ("x", Decision("default", Reason.BEHIND))
        wait_until_old(routing)
        assert read(routing) == ("x", Decision("default", Reason.BEHIND))
        for replica in site.cluster.replicas:
            replica.resume_replay()
        site.wait_until_seen()
        wait_until_old(routing)
        text, decision = read(routing)
    assert text == "x"
    assert (decision.alias in {"replica1", "replica2"}, decision.reason) == (True, Reason.REPLICA)


def test_own_write_keeps_a_long_unit_on_the_primary_until_it_is_saved(site: Site) -> None:
    """What no pointer covers yet could be missed on a replica. Saved, it binds this unit as it binds any other."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=ANN) as routing:
        Entry.objects.create(text="own")
        wait_until_old(routing)
        assert read(routing) == ("own", Decision("default", Reason.WROTE))
        save_now(routing)
        wait_until_old(routing)
        assert read(routing) == ("own", Decision("default", Reason.BEHIND))
        for replica in site.cluster.replicas:
            replica.resume_replay()
        site.wait_until_seen()
        wait_until_old(routing)
        text, decision = read(routing)
        assert text == "own"
        assert decision.reason is Reason.REPLICA


def test_unit_inside_another_stays_on_the_primary_until_that_one_is_saved(site: Site) -> None:
    """The write of the unit around it has no position yet, either."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=ANN) as outer:
        Entry.objects.create(text="outer")
        with routing_session() as inner:
            wait_until_old(inner)
            assert read(inner) == ("outer", Decision("default", Reason.WROTE))
            wait_until_old(inner)
            assert read(inner) == ("outer", Decision("default", Reason.WROTE))
            save_now(outer)
            wait_until_old(inner)
            assert read(inner) == ("outer", Decision("default", Reason.BEHIND))


def test_long_unit_does_not_go_back_in_time(site: Site, settings: Any) -> None:
    """With monotonic reads, what it saw on the primary binds it when it might leave."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    site.wait_until_online()
    with routing_session(identity=ANN) as routing:
        _, decision = read(routing)
        assert decision.reason is Reason.REPLICA
        for replica in site.cluster.replicas:
            replica.pause_replay()
        with open_routing(None):
            Entry.objects.create(text="somebody else's")
        with use_primary():
            assert read(routing)[0] == "somebody else's"
        for _ in range(2):
            wait_until_old(routing)
            assert read(routing) == ("somebody else's", Decision("default", Reason.BEHIND))


def test_unit_asks_the_store_once_in_an_interval(site: Site, settings: Any) -> None:
    """An ordinary request costs what it did."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    site.wait_until_online()
    with routing_session(identity=ANN) as routing, redis_commands(site) as commands:
        for _ in range(5):
            decision = read(routing)[1]
            assert decision.reason is Reason.REPLICA
    assert len([command for command in commands if command.startswith(("GET", "MGET"))]) == 1


def test_unit_that_publishes_before_it_reads_asks_the_store_once(site: Site, settings: Any) -> None:
    """The interval begins with the first question, whoever asks it."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}
    site.wait_until_online()
    with routing_session(identity=ANN) as routing, redis_commands(site) as commands:
        export_pointer()
        assert read(routing)[1].reason is Reason.REPLICA
    assert len([command for command in commands if command.startswith(("GET", "MGET"))]) == 1


@pytest.mark.parametrize("reason", [Reason.BEHIND, Reason.FAILOVER])
def test_statement_that_fails_slowly_does_not_come_back_to_the_same_host(site: Site, reason: Reason) -> None:
    """However old the unit has become meanwhile; the next statement may."""
    with routing_session() as routing:
        read(routing)
        for alias in ("replica1", "replica2"):
            routing.cluster("default").exclude(alias, reason)
        wait_until_old(routing)
        assert place_again("default").alias == "default"
        decision = read(routing)[1]
    assert decision.reason is Reason.REPLICA
