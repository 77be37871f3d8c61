"""Work that outlives its unit of work: what a task writes after the response still binds the user whose request started it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.test import AsyncClient, Client

from django_pglb import current_decisions, routing_session, runtime
from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import Nobody, RoutingSession
from django_pglb.pointers import save_now

from .fix_site import Served, Site
from .guestbook import views
from .guestbook.models import Entry
from .test_long_units import ANN

TOKEN = {"Authorization": "Token one"}
BEHIND = {("default", "behind")}


def newest(token: str = "Token one") -> tuple[str | None, set[tuple[str, str]]]:
    """Return what a request reads, and where it was read and why."""
    response = Client().get("/newest/", headers={"Authorization": token})
    return response.json()["text"], {(alias, reason) for alias, reason, _ in Served(response).decisions}


def newest_of_ann() -> tuple[str | None, set[tuple[str, str]]]:
    with routing_session(identity=ANN) as routing:
        entry = Entry.objects.order_by("-pk").first()
    return entry and entry.text, {(alias, reason) for alias, reason, _ in routing.decisions()}


async def let_it_write_after_the_response(how: str) -> None:
    response = await AsyncClient().get("/write_later/", {"how": how}, headers=TOKEN)
    assert response.status_code == 200
    assert "pglb" not in response.cookies
    ((task, event),) = views.may_write.items()
    views.may_write.clear()
    event.set()
    await task
    await sync_to_async(connections.close_all)()


@pytest.mark.parametrize("how", ["statement", "transaction", "inner"])
def test_task_that_outlives_its_request_binds_the_user(site: Site, how: str) -> None:
    """It saves what it has committed by itself, since the request will not any more."""
    site.pause_replay()
    asyncio.run(let_it_write_after_the_response(how))
    assert newest() == ("later", BEHIND)
    if how == "inner":
        assert newest("Token inner") == ("later", BEHIND)


def test_task_that_outlives_its_request_may_bind_nobody(site: Site) -> None:
    """`ignore_writes()` means the same there."""
    site.pause_replay()
    asyncio.run(let_it_write_after_the_response("ignored"))
    text, served = newest()
    assert text is None
    assert {reason for _, reason in served} == {"replica"}


@contextmanager
def writing(context: contextvars.Context) -> Iterator[Callable[[], None]]:
    """Write in a transaction of another thread of the same unit of work. Yields what lets it commit."""
    has_written, may_commit = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                Entry.objects.create(text="slow")
                has_written.set()
                may_commit.wait(60)
        finally:
            connections.close_all()

    def commit() -> None:
        may_commit.set()
        thread.join(60)

    thread = threading.Thread(target=context.run, args=[write])
    thread.start()
    try:
        assert has_written.wait(60)
        yield commit
    finally:
        commit()


def test_transaction_that_is_open_when_its_unit_ends_binds_when_it_commits(site: Site) -> None:
    """The position that the end has saved does not cover it."""
    site.pause_replay()
    with ExitStack() as stack:
        with routing_session(identity=ANN):
            Entry.objects.create(text="quick")
            commit = stack.enter_context(writing(contextvars.copy_context()))
        assert newest_of_ann() == ("quick", BEHIND)
        commit()
        assert newest_of_ann() == ("slow", BEHIND)


def test_save_in_the_middle_does_not_take_an_open_transaction_for_saved(site: Site) -> None:
    """As before a chunk of a stream, while another task of it writes: the commit must be saved again."""
    with routing_session(identity=ANN) as routing, writing(contextvars.copy_context()) as commit:
        assert must_save(routing)
        save_now(routing)
        assert not must_save(routing)
        commit()
        assert must_save(routing)


def test_write_that_is_noted_during_a_save_is_saved_again(site: Site) -> None:
    """The position was taken before it."""
    routing = RoutingSession()

    class WritingMeanwhile(Nobody):
        def to_bind(self) -> tuple[()]:
            routing.cluster("default").note_write()
            return ()

    routing.identities = WritingMeanwhile()
    routing.cluster("default").note_write()
    save_now(routing)
    assert must_save(routing)
    routing.identities = Nobody()
    save_now(routing)
    assert not must_save(routing)


def must_save(routing: RoutingSession) -> bool:
    return routing.cluster("default").must_save


def test_rolled_back_transaction_of_an_ended_unit_is_forgotten(site: Site) -> None:
    """The connection's next transaction is somebody else's, and binds nobody else."""
    with routing_session(identity=ANN):
        context = contextvars.copy_context()

    def roll_back() -> None:
        with transaction.atomic():
            Entry.objects.create(text="never")
            transaction.set_rollback(True)

    context.run(roll_back)
    with transaction.atomic():
        Entry.objects.create(text="somebody else's")
    assert site.pointer_keys() == []


def test_unit_that_wrote_may_end_in_an_event_loop(site: Site) -> None:
    """As a generator does that is closed there. No database can be asked there, so who is bound is kept on the primary."""

    async def end(unit: routing_session) -> None:
        unit.__exit__(None, None, None)

    def write() -> None:
        unit = routing_session(identity=("test", "ann"))
        unit.__enter__()
        Entry.objects.create(text="new")
        asyncio.run(end(unit))

    contextvars.copy_context().run(write)
    (bound,) = runtime.get_runtime().load("default", [("test", "ann")])
    assert bound.pinned_until > time.monotonic()
    with routing_session(identity=("test", "ann")):
        assert Entry.objects.get().text == "new"
        assert {(decision.alias, decision.reason) for decision in current_decisions()} == {("default", Reason.BEHIND)}
