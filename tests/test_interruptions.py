"""Whoever interrupts a unit of work, as a task's time limit does, is no trouble of the store's, and loses nothing that was committed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django_redis.exceptions import ConnectionInterrupted

from django_pglb import current_decisions, routing_session, runtime
from django_pglb.core.decision import Reason
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.stores import is_trouble
from django_pglb.testing import RedisServer

from .fix_site import Site
from .fix_store import ANN, BOB, MakeStore, at, interrupted_when, is_up, loaded, pool_of, recovery_of, wait_until_up
from .guestbook.models import Entry

ENDLESS = {"SOCKET_CONNECT_TIMEOUT": 60, "SOCKET_TIMEOUT": 60}


def soon() -> Callable[[], bool]:
    """Return what holds a moment from now: whoever waits for a frozen server is waiting by then."""
    begun = time.monotonic()
    return lambda: time.monotonic() > begun + 0.3


def test_interrupted_load_is_no_outage(redis_server: RedisServer, make_store: MakeStore) -> None:
    """It goes on to whom it is for, and the store is as well as it was."""
    store = make_store(**ENDLESS)
    store.vouch("default")
    store.save("default", [ANN], at(8))
    redis_server.freeze()
    with pytest.raises(SoftTimeLimitExceeded), interrupted_when(soon(), by=SoftTimeLimitExceeded):
        loaded(store, [ANN])
    redis_server.thaw()
    assert is_up(store)
    assert loaded(store, [ANN]) == at(8)


@pytest.mark.parametrize("by", [SoftTimeLimitExceeded, KeyboardInterrupt])
def test_interrupted_save_is_made_all_the_same(redis_server: RedisServer, make_store: MakeStore, by: type[BaseException]) -> None:
    """If the store answers by then; else it is owed."""
    store = make_store()
    store.vouch("default")
    loaded(store, [ANN])
    redis_server.freeze()
    waiting = threading.Timer(0.6, redis_server.thaw)
    waiting.start()
    with pytest.raises(by), interrupted_when(soon(), by=by):
        store.save("default", [ANN], at(8))
    waiting.join()
    wait_until_up(store)
    assert loaded(store, [ANN]) == at(8)
    redis_server.freeze()
    with pytest.raises(by), interrupted_when(soon(), by=by):
        store.save("default", [BOB], at(8))
    assert recovery_of(store).owed == 1
    redis_server.thaw()
    wait_until_up(store)
    assert loaded(store, [BOB]) == at(8)


def test_connection_whose_handshake_was_interrupted_is_thrown_away(redis_server: RedisServer, make_store: MakeStore) -> None:
    """Its next command would get the answer to the handshake."""
    store = make_store(**ENDLESS, DB=1, PASSWORD="")
    redis_server.freeze()

    def is_shaking_hands() -> bool:
        return any(connection._sock is not None for connection in tuple(pool_of(store)._in_use_connections))

    with pytest.raises(SoftTimeLimitExceeded), interrupted_when(is_shaking_hands, by=SoftTimeLimitExceeded):
        loaded(store, [ANN])
    assert all(connection._sock is None for connection in pool_of(store)._available_connections)
    redis_server.thaw()
    store.vouch("default")
    store.save("default", [ANN], at(8))
    assert [loaded(store, [ANN]) for _ in range(20)] == [at(8)] * 20
    assert is_up(store)


class Interrupted(SessionStore):
    """A session whose load is interrupted."""

    def load(self) -> dict[str, Any]:
        raise SoftTimeLimitExceeded


@pytest.fixture
def view_of_interrupted(site: Site, rf: RequestFactory) -> Callable[[Callable[[], object]], HttpResponse]:
    """Runs something in a request whose session takes too long."""

    def run(work: Callable[[], object]) -> HttpResponse:
        def view(request: HttpRequest) -> HttpResponse:
            request.session = Interrupted("k" * 32)
            work()
            return HttpResponse()

        rf.cookies["sessionid"] = "k" * 32
        return LoadBalancingMiddleware(view)(rf.get("/"))  # type: ignore[return-value,arg-type]

    return run


def test_interrupted_look_at_the_session_is_not_swallowed(view_of_interrupted: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The read that asked for it ends."""
    with pytest.raises(SoftTimeLimitExceeded):
        view_of_interrupted(Entry.objects.count)
    assert "could not be loaded" not in caplog.text


def test_what_was_committed_binds_whom_it_can_where_the_look_at_the_session_is_interrupted(view_of_interrupted: Any) -> None:
    """The session's own key is known, and pinned: its position is not."""
    with pytest.raises(SoftTimeLimitExceeded):
        view_of_interrupted(lambda: Entry.objects.create(text="x"))
    (bound,) = runtime.get_runtime().load("default", [("session", "k" * 32)])
    assert bound.pinned_until > 0


@pytest.mark.parametrize("way", ["request", "unit of work"])
def test_who_is_cancelled_while_waiting_for_a_thread_to_save_in_is_bound(site: Site, way: str) -> None:
    """Something else of the request is running in its thread, and its client goes."""
    key, occupied, may_end = "k" * 32, asyncio.Event(), threading.Event()

    async def view(_: object = None) -> HttpResponse:
        await Entry.objects.acreate(text="x")
        running.append(asyncio.create_task(sync_to_async(may_end.wait)()))
        await asyncio.sleep(0)  # for that to begin
        occupied.set()
        return HttpResponse()

    async def ask() -> None:
        if way == "request":
            request = RequestFactory(headers={"Authorization": key}).get("/")
            await LoadBalancingMiddleware(view)(request)  # type: ignore[arg-type,misc]
        else:
            async with routing_session(identity=("authorization", key)):
                await view()

    async def go() -> None:
        async with ThreadSensitiveContext():
            asking = asyncio.create_task(ask())
            await occupied.wait()
            await asyncio.sleep(0)  # for it to wait
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            may_end.set()
            await running[0]
            # Behind whatever else is to be done there.
            await sync_to_async(connections.close_all)()

    running: list[asyncio.Task[bool]] = []
    asyncio.run(go())
    (bound,) = runtime.get_runtime().load("default", [("authorization", key)])
    assert bound.pointer is not None


def test_interrupted_capture_pins_who_wrote(site: Site) -> None:
    """Nobody can tell the position any more, and the next statement does not get the answer that comes late."""
    interrupting = interrupted_when(soon(), by=SoftTimeLimitExceeded)

    def write() -> None:
        with routing_session(identity=ANN):
            Entry.objects.create(text="x")
            site.host("default").freeze()
            interrupting.__enter__()

    with pytest.raises(SoftTimeLimitExceeded):
        write()
    interrupting.__exit__(None, None, None)
    site.host("default").thaw()
    with routing_session(identity=ANN):
        assert Entry.objects.count() == 1
        assert {reason for _, reason, _ in current_decisions()} == {Reason.BEHIND}


class PylibmcError(Exception):
    """As the client library of a cache raises."""

    __module__ = "pylibmc.exceptions"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (DatabaseError(), True),
        (redis.TimeoutError(), True),
        (PylibmcError(), True),
        (ConnectionInterrupted(None), True),
        (SoftTimeLimitExceeded(), False),
        (RuntimeError(), False),
    ],
)
def test_trouble_is_what_systems_and_client_libraries_raise(error: Exception, expected: bool) -> None:
    """Anything else is for somebody else."""
    assert is_trouble(error) is expected
