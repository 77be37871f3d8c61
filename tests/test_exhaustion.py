"""Servers that are full, pools that are empty, connections that have outlived their server: somebody else answers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from typing import Any

import psycopg
import pytest
from django.db import connections

from django_pglb import current_decisions, routing_session, runtime
from django_pglb.core.decision import Reason
from django_pglb.core.topology import HostState

from .fix_site import Site
from .guestbook.models import Entry
from .test_failover import fill


@pytest.fixture
def full_replica(site: Site) -> Iterator[ExitStack]:
    """The site whose first replica has no connection left; closing what this yields frees them all."""
    fill(site)
    connections["replica1"].close()
    with ExitStack() as taken:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            fill_up(site, taken)
        yield taken


def fill_up(site: Site, taken: ExitStack) -> None:
    while True:
        taken.enter_context(site.cluster.replicas[0].connect())


def test_replica_that_is_full_is_passed_over_and_comes_back(site: Site, full_replica: ExitStack) -> None:
    """It is not dead: the checker's own connection goes on, so it is tried again before long, and no reader notices."""
    with routing_session():
        assert Entry.objects.using("replica1").count() == 5
        assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)
    host = runtime.get_runtime().topology("default").by_alias["replica1"]
    assert (host.state, host.why.startswith("failed a read")) in {(HostState.OFFLINE, True), (HostState.ONLINE, False)}
    full_replica.close()
    site.wait_for_states(replica1=HostState.ONLINE)
    with routing_session():
        assert Entry.objects.using("replica1").count() == 5
        assert current_decisions() == (("replica1", Reason.REPLICA, 1),)


@pytest.fixture
def small_pool(site: Site) -> Iterator[None]:
    """The first replica behind a pool of one connection, for which a reader waits half a second."""
    fill(site)
    connection: Any = connections["replica1"]
    connection.close()
    before = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 1, "timeout": 0.5}}
    yield
    connection.close()
    connection.close_pool()
    connection.settings_dict["OPTIONS"] = before


def test_reader_whom_the_pool_gives_no_connection_is_answered_by_another_host(site: Site, small_pool: None) -> None:
    """`PoolTimeout` is no server's error, and still no reader's."""
    taken, done = Event(), Event()

    def hold() -> None:
        connections["replica1"].ensure_connection()
        taken.set()
        done.wait(60)
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert taken.wait(60)
        with routing_session():
            assert Entry.objects.using("replica1").count() == 5
            assert current_decisions() == (("replica2", Reason.FAILOVER, 1),)
        done.set()


@pytest.mark.parametrize("health_checks", [False, True])
def test_persistent_connection_that_outlived_its_server_is_replaced(site: Site, health_checks: bool) -> None:
    """`CONN_MAX_AGE = None`: the server was restarted between two requests, and has been well since."""
    fill(site)
    connection: Any = connections["replica1"]
    connection.close()
    changes = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": health_checks}
    before = {key: connection.settings_dict[key] for key in changes}
    connection.settings_dict.update(changes)
    try:
        with routing_session():
            assert Entry.objects.using("replica1").count() == 5
        replica = site.cluster.replicas[0]
        replica.stop()
        site.wait_for_states(replica1=HostState.OFFLINE)
        replica.start()
        site.wait_for_states(replica1=HostState.ONLINE)
        # What Django does before each request.
        connection.close_if_unusable_or_obsolete()
        with routing_session():
            assert Entry.objects.using("replica1").count() == 5
            assert current_decisions() == (("replica1", Reason.REPLICA, 1),)
    finally:
        connection.close()
        connection.settings_dict.update(before)
