"""A cluster that was made anew under the same aliases, as by `pg_upgrade` or from a dump: its positions begin low again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import pytest
from django.conf import settings as project
from django.core.management import call_command
from django.db import connections
from django.test import Client

from django_pglb import current_decisions, export_pointer, routing_session, runtime
from django_pglb.core.decision import Reason
from django_pglb.core.lsn import UNKNOWN_SYSTEM
from django_pglb.stores.carried import unsign
from django_pglb.testing import Cluster

from .fix_site import ALIASES, FORGET_ROWS, NAME, Served, Site
from .guestbook.models import Entry

SEGMENTS = 8


class Moves:
    """The site, and a cluster to which it can be moved."""

    def __init__(self, site: Site, new: Site) -> None:
        self.site = site
        self.new = new

    def move(self) -> None:
        """Put the new cluster in the place of the old one. What users have in the store and in their cookies stays."""
        _point_at(self.new.cluster)
        self.new.wait_until_online()


def _point_at(cluster: Cluster) -> None:
    connections.close_all()
    for alias, name in ALIASES.items():
        port = next(host.port for host in cluster.hosts if host.name == name)
        project.DATABASES[alias]["PORT"] = connections[alias].settings_dict["PORT"] = port
    runtime.reset()


@pytest.fixture(scope="module")
def new_cluster(migrated_site: Site, django_db_blocker: Any) -> Iterator[Cluster]:
    """A cluster that was made from nothing, and is behind the positions of the old one by far."""
    for _ in range(SEGMENTS):
        migrated_site.cluster.primary.ask("SELECT pg_logical_emit_message(false, 'test', 'x')")
        migrated_site.cluster.primary.ask("SELECT pg_switch_wal()")
    with Cluster(replicas=2) as cluster:
        cluster.create_database(NAME)
        with django_db_blocker.unblock():
            _point_at(cluster)
            call_command("migrate", verbosity=0)
            _point_at(migrated_site.cluster)
        assert cluster.primary.write_lsn + 16 * 1024 * 1024 < migrated_site.cluster.primary.write_lsn
        assert cluster.primary.timeline == migrated_site.cluster.primary.timeline
        yield cluster


@pytest.fixture
def moves(site: Site, new_cluster: Cluster, settings: Any) -> Iterator[Moves]:
    """Nothing was moved yet."""
    new_cluster.heal()
    new = copy(site)
    new.cluster = new_cluster
    with new.host("default").connect(dbname=NAME) as connection:
        connection.execute(FORGET_ROWS)
    settings.PGLB = {"default": {**settings.PGLB["default"], "MAX_LAG_SECONDS": None}}
    site.wait_until_online()
    yield Moves(site, new)
    new_cluster.heal()
    _point_at(site.cluster)


ANN = {"Authorization": "Token ann"}


def write_over(new: Site) -> None:
    """Write to the new cluster what has come over from the old one, which its replicas do not have yet."""
    new.wait_until_online()
    new.pause_replay()
    with new.host("default").connect(dbname=NAME) as connection:
        connection.execute("INSERT INTO guestbook_entry (text, created) VALUES ('came over', now())")


def assert_comes_back(moves: Moves, get: Callable[[], Any]) -> None:
    """Assert that who asks is answered by the new primary, bound by that, and answered by a replica as soon as one has it."""
    write_over(moves.new)
    for _ in range(2):
        response = get()
        assert (response.json(), Served(response).aliases, Served(response).reasons) == (
            {"text": "came over"},
            {"default"},
            {Reason.BEHIND},
        )
    moves.new.resume_replay()
    moves.new.wait_until_seen()
    response = get()
    assert (response.json(), Served(response).reasons) == ({"text": "came over"}, {Reason.REPLICA})


def test_browser_that_wrote_before_a_move_comes_back_to_replicas(moves: Moves) -> None:
    """It carries what it is bound by."""
    browser = Client()
    browser.post("/write/", {"text": "on the old one"})
    moves.move()
    assert_comes_back(moves, lambda: browser.get("/newest/"))
    found = unsign(browser.cookies["pglb"].value, max_age=60)["default"].pointer
    assert found is not None
    assert found.system == moves.new.cluster.primary.ask("SELECT system_identifier FROM pg_control_system()")
    assert found.lsn <= moves.new.cluster.primary.write_lsn


def test_who_is_known_to_the_store_and_wrote_before_a_move_comes_back_to_replicas(moves: Moves) -> None:
    """Without any cookie."""
    Client().post("/write/", {"text": "on the old one"}, headers=ANN)
    moves.move()
    assert_comes_back(moves, lambda: Client().get("/newest/", headers=ANN))


def test_who_writes_after_a_move_is_bound_by_that_alone(moves: Moves) -> None:
    """The former position gives way, in store and cookie."""
    browser = Client()
    browser.post("/write/", {"text": "on the old one"}, headers=ANN)
    moves.move()
    browser.post("/write/", {"text": "on the new one"}, headers=ANN)
    moves.new.wait_until_seen()
    for client in (browser, Client()):
        response = client.get("/newest/", headers=ANN)
        assert (response.json(), Served(response).reasons) == ({"text": "on the new one"}, {Reason.REPLICA})


def test_who_saw_the_old_cluster_comes_back_to_replicas(moves: Moves, settings: Any) -> None:
    """Also what was only seen is of the system where it was seen."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    moves.site.wait_until_online()
    assert Served(Client().get("/newest/", headers=ANN)).reasons == {Reason.REPLICA}
    moves.move()
    assert_comes_back(moves, lambda: Client().get("/newest/", headers=ANN))


def test_pointer_that_was_exported_before_a_move_binds_by_a_position_of_now(moves: Moves) -> None:
    """As a job's does that waited in its queue meanwhile."""
    with routing_session():
        Entry.objects.create(text="on the old one")
        pointer = export_pointer()
    moves.move()
    write_over(moves.new)
    with routing_session(pointer=pointer):
        assert Entry.objects.order_by("-pk").values_list("text", flat=True)[0] == "came over"
        assert [(alias, reason) for alias, reason, _ in current_decisions()] == [("default", Reason.BEHIND)]
        again = export_pointer()
    moves.new.resume_replay()
    moves.new.wait_until_seen()
    with routing_session(pointer=again):
        assert Entry.objects.order_by("-pk").values_list("text", flat=True)[0] == "came over"
        assert [reason for _, reason, _ in current_decisions()] == [Reason.REPLICA]


def test_nobody_is_released_before_the_system_is_known(moves: Moves) -> None:
    """A process that has just begun has looked at no server yet."""
    browser = Client()
    browser.post("/write/", {"text": "on the old one"}, headers=ANN)
    moves.move()
    write_over(moves.new)
    for _ in range(3):
        runtime.reset()
        for client in (browser, Client()):
            response = client.get("/newest/", headers=ANN)
            assert (response.json(), Served(response).aliases) == ({"text": "came over"}, {"default"})


def test_capture_is_one_round_trip_and_does_without_control_data(moves: Moves) -> None:
    """Whose role may not read it is told no system, which binds by the position alone."""
    site, since = moves.site, moves.site.log_end("default")
    with routing_session(identity=("user", "1")):
        Entry.objects.create(text="x")
    asked = [text for text in site.statements("default", since) if "pg_current_wal_insert_lsn" in text]
    assert len(asked) == 1
    site.cluster.create_role("closed")
    with site.host("default").connect(dbname=NAME) as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO closed")
    try:
        wrapper = connections["default"].copy()
        wrapper.settings_dict = {**wrapper.settings_dict, "USER": "closed"}
        try:
            assert [(wrapper.pglb_capture_pointer(within_seconds=20)).system for _ in range(2)] == [UNKNOWN_SYSTEM] * 2
        finally:
            wrapper.close()
    finally:
        with site.host("default").connect(dbname=NAME) as connection:
            connection.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC; DROP OWNED BY closed; DROP ROLE closed")
