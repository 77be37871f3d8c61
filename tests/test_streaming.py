"""What a streaming response does while it is consumed belongs to its request: value, host and reason, sync and async."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from django_pglb import use_replicas
from django_pglb.context import current_scope
from django_pglb.core.policy import Scope
from django_pglb.identity import session_owners
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.stores.base import decode
from django_pglb.testing import wait_until

from .fix_site import Served, Site
from .guestbook.models import Entry

TOKEN = {"Authorization": "Token one"}
BEHIND = [["default", "behind"]]
# The scope of a thread or task in which nothing of ours is in force.
NOTHING = Scope()


class SyncStream:
    """A response that the test consumes chunk by chunk, between other requests."""

    path = "/stream/"

    def __init__(self, steps: str, *, method: str = "GET", at_end: str = "") -> None:
        query = urlencode({"steps": steps, "at_end": at_end})
        self.response = self.request(method, f"{self.path}?{query}")
        self._chunks: Any = self.response.streaming_content

    def request(self, method: str, path: str) -> Any:
        return Client().generic(method, path, headers=TOKEN)

    def next(self) -> Any:
        return json.loads(next(self._chunks))

    def rest(self) -> list[Any]:
        return [json.loads(chunk) for chunk in self._chunks]

    def scope(self) -> Scope:
        """Return what is in force where the chunks are consumed."""
        return current_scope()

    def hang_up(self) -> None:
        """Leave before the end, as a client that has gone does."""
        self.response.close()

    def forget(self) -> None:
        """Leave it to the garbage collector."""
        del self.response, self._chunks
        gc.collect()

    def close(self) -> None:
        if hasattr(self, "response"):
            self.hang_up()


class AsyncStream(SyncStream):
    """The same in an event loop, which stands still between two steps."""

    path = "/stream_async/"

    def __init__(self, *args: Any, **arguments: Any) -> None:
        self._runner = asyncio.Runner()
        super().__init__(*args, **arguments)

    def request(self, method: str, path: str) -> Any:
        return self._run(lambda: AsyncClient().generic(method, path, headers=TOKEN))

    def next(self) -> Any:
        return json.loads(self._run(lambda: anext(self._chunks)))

    def rest(self) -> list[Any]:
        async def all_chunks() -> list[Any]:
            return [json.loads(chunk) async for chunk in self._chunks]

        return self._runner.run(all_chunks())

    def scope(self) -> Scope:
        async def scope() -> Scope:
            return current_scope()

        return self._runner.run(scope())

    def hang_up(self) -> None:
        async def until_all_is_done() -> None:
            self.response.close()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.gather(*others)

        self._runner.run(until_all_is_done())

    def close(self) -> None:
        super().close()
        self._run(sync_to_async(connections.close_all))
        self._runner.close()

    def _run(self, awaitable: Callable[[], Any]) -> Any:
        async def awaiting() -> Any:
            return await awaitable()

        return self._runner.run(awaiting())


Open = Callable[..., SyncStream]


@pytest.fixture(params=[SyncStream, AsyncStream], ids=["sync", "async"])
def open_stream(site: Site, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens streams of one kind, and closes them."""
    opened: list[SyncStream] = []

    def open_stream(*args: Any, **arguments: Any) -> SyncStream:
        opened.append(request.param(*args, **arguments))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()


def newest(**headers: str) -> tuple[str | None, list[list[str]]]:
    """Return what another request of the same user reads, and where it was read and why."""
    response = Client().get("/newest/", headers=headers or TOKEN)
    return response.json()["text"], [[alias, reason] for alias, reason, _ in Served(response).decisions]


def is_on_replica(chunk: Any, reason: str = "replica") -> bool:
    return all(alias in {"replica1", "replica2"} and why == reason for alias, why in chunk["served"])


def test_stream_reads_from_one_replica(site: Site, open_stream: Open) -> None:
    """Its reads are those of its request, and what consumes it is in no unit of work."""
    stream = open_stream("read,read,read")
    first = stream.next()
    assert is_on_replica(first)
    assert stream.scope() == NOTHING
    # The same host has answered, so there is nothing new to tell but the count.
    assert [chunk["served"] for chunk in stream.rest()] == [first["served"]] * 2
    assert stream.scope() == NOTHING


def test_write_is_saved_before_its_chunk_leaves(site: Site, open_stream: Open) -> None:
    """While the stream is still open the user's next request reads it, from the primary; a stranger is none the wiser."""
    site.pause_replay()
    stream = open_stream("read,write,read")
    assert is_on_replica(stream.next())
    assert newest()[0] is None
    assert stream.next()["text"] == "streamed"
    assert newest() == ("streamed", BEHIND)
    text, served = newest(Authorization="Token two")
    assert text is None
    assert {reason for _, reason in served} == {"replica"}
    own = stream.next()
    # By its own pointer if it has taken longer than an interval to get here.
    assert (own["text"], own["served"] in ([["default", "wrote"]], BEHIND)) == ("streamed", True)


@pytest.mark.parametrize("ending", ["end", "hang up", "failure"])
def test_last_write_of_a_stream_is_saved(site: Site, open_stream: Open, ending: str) -> None:
    """However it ends: what its `finally` wrote binds."""
    site.pause_replay()
    stream = open_stream("read,fail" if ending == "failure" else "read", at_end="last")
    assert is_on_replica(stream.next())
    if ending == "end":
        assert stream.rest() == []
    elif ending == "hang up":
        stream.hang_up()
    else:
        with pytest.raises(RuntimeError, match="in the middle"):
            stream.next()
    assert newest() == ("last", BEHIND)
    assert stream.scope() == NOTHING


def test_override_around_a_chunk_is_the_streams_alone(site: Site, open_stream: Open) -> None:
    """Inside, it holds in the next step, too; the consumer never notices, nor does an override of its own reach the stream."""
    site.pause_replay()
    Client().post("/write/", {"text": "newer"}, headers=TOKEN)
    stream = open_stream("read,stale,read")
    assert stream.next() == {"text": "newer", "served": BEHIND}
    stale = stream.next()
    assert (stale["text"], is_on_replica(stale, "stale_allowed")) == (None, True)
    assert stream.scope() == NOTHING
    assert newest() == ("newer", BEHIND)
    assert stream.next() == stale
    with use_replicas():
        assert stream.next() == {"text": "newer", "served": BEHIND}
        assert current_scope().forced == "replicas"


def test_abandoned_stream_leaves_no_trace(site: Site, open_stream: Open) -> None:
    """Collected in the middle of a block, in whatever context that happens."""
    stream = open_stream("stale")
    assert is_on_replica(stream.next(), "stale_allowed")
    stream.forget()
    assert stream.scope() == NOTHING
    assert newest()[0] is None


def test_long_stream_sees_what_another_device_wrote_meanwhile(site: Site, open_stream: Open) -> None:
    """Server-sent events go on for hours."""
    stream = open_stream(",".join(["read"] * 10_000))
    assert is_on_replica(stream.next())
    site.pause_replay()
    Client().post("/write/", {"text": "from the phone"}, headers=TOKEN)
    wait_until(lambda: stream.next() == {"text": "from the phone", "served": BEHIND}, timeout=60, what="the stream to see it")


def test_long_stream_leaves_the_primary_again(site: Site, open_stream: Open) -> None:
    """Neither its own write nor replicas that were behind once keep it there."""
    site.pause_replay()
    stream = open_stream(",".join(["write", *["read"] * 10_000]))
    assert stream.next()["text"] == "streamed"
    # Its own pointer takes over from the write itself.
    wait_until(lambda: stream.next() == {"text": "streamed", "served": BEHIND}, timeout=60, what="the write to be left behind")
    site.resume_replay()

    def is_back() -> bool:
        chunk = stream.next()
        assert chunk["text"] == "streamed"
        return is_on_replica(chunk)

    wait_until(is_back, timeout=60, what="a replica to answer again")


def test_stream_of_an_unsafe_request_reads_from_the_primary_and_is_taken_to_have_written(site: Site, open_stream: Open) -> None:
    """Also at its end: what it wrote where no cursor could see it binds, too."""
    stream = open_stream("read,read", method="POST")
    assert stream.next()["served"] == [["default", "unsafe_method"]]
    site.forget_pointers()
    site.pause_replay()
    Entry.objects.create(text="unseen")
    assert newest()[0] is None
    assert stream.rest()
    assert newest() == ("unseen", BEHIND)


def test_unit_of_work_around_a_chunk_binds_both(site: Site, open_stream: Open) -> None:
    """What is written in a unit that the generator opened is saved for its identity and for the request's, before the chunk leaves."""
    site.pause_replay()
    stream = open_stream("inner,read")
    assert stream.next()["text"] == "streamed"
    assert newest() == ("streamed", BEHIND)
    assert newest(Authorization="Token inner") == ("streamed", BEHIND)


def test_transaction_of_a_stream_keeps_its_reads(site: Site) -> None:
    """Whatever `ATOMIC_REQUESTS` says: that block has ended before the first chunk."""
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with closing(SyncStream("transaction,read")) as stream:
            assert stream.next()["served"] == [["default", "transaction"]]
            assert is_on_replica(stream.next())
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False


def test_nothing_is_saved_for_a_stream_that_only_reads(site: Site, open_stream: Open) -> None:
    """It costs the store what a request costs."""
    stream = open_stream("read,read")
    assert len(stream.rest()) == 2
    assert site.pointer_keys() == []


def test_write_of_a_stream_that_only_a_cookie_could_carry_is_told_once(
    site: Site, open_stream: Open, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The headers are gone, and there is no store: nobody is bound, and the log says so."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "STORE": {"BACKEND": "django_pglb.stores.CookieStore"}}}
    site.wait_until_online()
    with caplog.at_level(logging.WARNING, logger="django_pglb.store"):
        for _ in range(2):
            assert len(open_stream("write,write").rest()) == 2
    (message,) = caplog.messages
    assert "known by its cookie alone" in message


def test_client_that_disconnects_ends_the_stream(site: Site) -> None:
    """Under ASGI the generator is told at once, in its unit of work, and what it then wrote is saved."""
    site.pause_replay()
    asyncio.run(hang_up_in_the_middle("/stream_async/", "steps=read,hang&at_end=last"))
    assert newest() == ("last", BEHIND)


def test_client_that_disconnects_while_a_chunk_is_sent_ends_the_stream(site: Site) -> None:
    """The generator is not running then, and is closed all the same, not left to the garbage collector."""
    site.pause_replay()
    gc.disable()
    try:
        asyncio.run(hang_up_in_the_middle("/stream_async/", "steps=read,read&at_end=last", hangs_while_sending=True))
        assert newest() == ("last", BEHIND)
    finally:
        gc.enable()


async def hang_up_in_the_middle(path: str, query: str, *, hangs_while_sending: bool = False) -> None:
    """Send a request as an ASGI server does, and disconnect when the first chunk has come."""
    has_come, sent = asyncio.Event(), 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        if sent == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await has_come.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            has_come.set()
            if hangs_while_sending:
                await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver"), (b"authorization", TOKEN["Authorization"].encode())],
    }
    await asyncio.wait_for(ASGIHandler()(scope, receive, send), 60)


@pytest.mark.parametrize("handler", [WSGIHandler, ASGIHandler])
def test_file_is_left_to_the_server(site: Site, rf: RequestFactory, handler: Any) -> None:
    """`wsgi.file_wrapper` sends it without Python in between, as it does without us."""
    response = FileResponse(io.BytesIO(b"content"))
    chunks, closers = response._iterator, list(response._resource_closers)
    assert LoadBalancingMiddleware(lambda request: response)(rf.get("/")) is response
    assert (response._iterator, response._resource_closers) == (chunks, closers)


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators:Warning")
def test_synchronous_stream_under_asgi_is_bound(site: Site) -> None:
    """Django consumes it in a thread, to its end; what it wrote is saved before anything is sent."""
    site.pause_replay()

    async def consume() -> list[Any]:
        response = await AsyncClient().get("/stream/?steps=read,write", headers=TOKEN)
        assert isinstance(response, StreamingHttpResponse)
        try:
            return [json.loads(chunk) async for chunk in response]
        finally:
            await sync_to_async(connections.close_all)()

    first, second = asyncio.run(consume())
    assert is_on_replica(first)
    assert second["text"] == "streamed"
    assert newest() == ("streamed", BEHIND)


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators:Warning")
def test_asynchronous_stream_under_wsgi_is_bound(site: Site) -> None:
    """Django consumes it in an event loop of its own, to its end."""
    site.pause_replay()
    response = Client().get("/stream_async/?steps=read,write", headers=TOKEN)
    assert isinstance(response, StreamingHttpResponse)
    first, second = [json.loads(chunk) for chunk in response]
    assert is_on_replica(first)
    assert second["text"] == "streamed"
    assert newest() == ("streamed", BEHIND)


def test_task_of_the_view_binds_while_its_stream_waits_for_the_next_chunk(site: Site) -> None:
    """That may be long in coming, as with server-sent events."""
    site.pause_replay()

    async def listen() -> Any:
        may_write = asyncio.Event()

        async def write() -> None:
            await may_write.wait()
            await Entry.objects.acreate(text="beside")

        async def events(request: HttpRequest) -> StreamingHttpResponse:
            tasks.append(asyncio.create_task(write()))

            async def chunks() -> AsyncIterator[str]:
                yield "begun"
                await asyncio.Event().wait()

            return StreamingHttpResponse(chunks())

        tasks: list[asyncio.Task[None]] = []
        with override_settings(ROOT_URLCONF=(path("events/", events),)):
            response = await AsyncClient().get("/events/", headers=TOKEN)
        assert isinstance(response, StreamingHttpResponse)
        stream: Any = aiter(response)
        assert await anext(stream) == b"begun"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        may_write.set()
        await tasks[0]
        try:
            return await sync_to_async(newest)()
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
            await stream.aclose()
            await sync_to_async(connections.close_all)()

    assert asyncio.run(listen()) == ("beside", BEHIND)


def export_by_stream(request: HttpRequest) -> StreamingHttpResponse:
    """Write, and pass on rows as they come from the primary."""

    def rows() -> Iterator[str]:
        Entry.objects.create(text="exported")
        with connection.cursor() as cursor:
            for (number,) in cursor.stream("SELECT generate_series(1, 3)"):
                yield f"{number}\n"

    return StreamingHttpResponse(rows())


def export_by_copy(request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[bytes]:
        Entry.objects.create(text="exported")
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 3)) TO STDOUT") as copy:
            for data in copy:
                yield bytes(data)

    return StreamingHttpResponse(rows())


@pytest.mark.parametrize("export", [export_by_stream, export_by_copy])
def test_write_is_saved_although_rows_occupy_the_connection(site: Site, export: Callable[[HttpRequest], StreamingHttpResponse]) -> None:
    """Nothing can be asked among the rows, and psycopg would wait for ever: a pin holds until they have ended, then a position."""
    site.pause_replay()
    chunks: list[bytes] = []
    has_begun, may_go_on = threading.Event(), threading.Event()

    def consume() -> None:
        with override_settings(ROOT_URLCONF=(path("export/", export),)):
            stream: Any = Client().get("/export/", headers=TOKEN).streaming_content
        chunks.append(next(stream))
        has_begun.set()
        may_go_on.wait(60)
        chunks.extend(stream)
        connections.close_all()

    # A daemon, so that a test run ends although it hangs.
    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert has_begun.wait(20)
    assert newest() == ("exported", BEHIND)
    (key,) = site.pointer_keys()
    assert decode(site.redis.get(key).decode()).pointer is None
    may_go_on.set()
    thread.join(20)
    assert not thread.is_alive()
    assert b"".join(chunks) == b"1\n2\n3\n"
    assert newest() == ("exported", BEHIND)
    assert decode(site.redis.get(key).decode()).pointer is not None


def test_session_is_not_loaded_among_rows(site: Site, user: Any) -> None:
    """That would wait for their end, too. Whoever is known without it is bound at once, and its user when the rows have ended."""
    browser = Client()
    browser.post("/sign_in/", {"username": "ann", "password": "secret"})
    site.wait_until_seen()
    site.forget_pointers()
    session_owners.clear()
    del browser.cookies["pglb"]
    kept: list[int] = []

    def consume() -> None:
        with override_settings(ROOT_URLCONF=(path("export/", export_by_copy),)):
            stream: Any = browser.get("/export/").streaming_content
        next(stream)
        kept.append(len(site.pointer_keys()))
        list(stream)
        kept.append(len(site.pointer_keys()))
        connections.close_all()

    # A daemon, so that a test run ends although it hangs.
    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(20)
    assert kept == [1, 2]
