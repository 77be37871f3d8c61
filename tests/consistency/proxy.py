"""A TCP proxy in front of one host that can fail as networks do: refuse, swallow, be slow, reset, lose a reply.

All proxies share one event loop in a thread of its own. Their methods may be called from any other thread, and return when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypeVar

from django_pglb.testing.ports import LOOPBACK, free_port

Result = TypeVar("Result")
CHUNK_BYTES = 65_536
BACKLOG = 200
CALL_SECONDS = 10.0
TURNS = 5
# https://man7.org/linux/man-pages/man7/socket.7.html: with a linger time of 0, closing sends RST.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What the network does to whoever wants to reach the host."""

    PASS = "pass"
    REFUSE = "refuse"
    SWALLOW = "swallow"
    """A black hole that acknowledges: connections are accepted, and what is sent is gone."""


class LostReply(NamedTuple):
    """When a reply was lost, and what the message held whose reply it was."""

    at: float
    message: bytes


class ProxyLoop:
    """The thread in which proxies live. A context manager: its end closes every proxy."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for proxy in self._proxies:
            proxy.close()
        self.call(_cancel_all_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def proxy(self, target_port: int) -> Proxy:
        """Return a new proxy in front of `target_port`, on a port of its own."""
        proxy = Proxy(self, target_port)
        self._proxies.append(proxy)
        return proxy

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do `work` in the loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)


class Proxy:
    """One host's way to its clients. Counts what it has done: the evidence that a fault was there."""

    def __init__(self, loop: ProxyLoop, target_port: int) -> None:
        self.port = free_port()
        self.target_port = target_port
        self.mode = Mode.PASS
        self.accepted = self.swallowed_bytes = self.delayed_messages = self.resets = 0
        self.lost_replies: list[LostReply] = []
        self.latency_up = self.latency_down = 0.0
        """Seconds that each message to the host, and from it, takes longer."""
        self.lose_after: bytes | None = None
        """What a client's message must hold for its reply to be lost; None again as soon as one was."""
        self._loop = loop
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        loop.call(self._listen())

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def pass_on(self) -> None:
        """Heal: pass everything on, at once. Connections from which something was swallowed are reset; the others go on."""
        self._loop.call(self._change(Mode.PASS))

    def refuse(self) -> None:
        """Refuse new connections, as a dead host does, and reset those that are open."""
        self._loop.call(self._change(Mode.REFUSE))

    def swallow(self) -> None:
        """Accept and never answer, on the open connections too."""
        self._loop.call(self._change(Mode.SWALLOW))

    def slow(self, *, up: float = 0.0, down: float = 0.0) -> None:
        """Let each message take so many seconds longer, in each direction."""
        self.latency_up, self.latency_down = up, down

    def reset_all(self) -> None:
        """Reset all open connections."""
        self._loop.call(self._reset_all())

    def lose_reply_to(self, message: bytes) -> None:
        """Let the next client's message that holds these bytes through, swallow the reply to it and reset that connection; once."""
        self.lose_after = message

    def close(self) -> None:
        """Stop listening and reset every connection."""
        self.refuse()

    # In the loop

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, backlog=BACKLOG, reuse_address=True)

    async def _change(self, mode: Mode) -> None:
        self.mode = mode
        self.slow()
        self.lose_after = None
        if mode is Mode.REFUSE:
            await self._stop_listening()
            await self._reset_all()
        elif self._server is None:
            await self._listen()
        if mode is Mode.PASS:
            for link in [link for link in self._links if link.has_lost]:
                link.reset()

    async def _stop_listening(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        # A server that is closed while asyncio is about to take over a connection loses it, and leaves it open.
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        await _let_the_loop_turn()
        server.close()

    async def _reset_all(self) -> None:
        for link in tuple(self._links):
            link.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        # Not a coroutine of its own: one that is cancelled before its first step would leave the connection open.
        task = asyncio.ensure_future(link.run())
        task.add_done_callback(lambda done: self._end(link, done))

    def _end(self, link: _Link, done: asyncio.Task[None]) -> None:
        self._links.discard(link)
        link.close()
        if not done.cancelled():
            done.result()


class _Link:
    """One client's connection, and the one to the host that was opened for it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = reader, writer
        self._writers = [writer]
        self._is_reset = False
        self._loses_reply_to: bytes | None = None
        self.has_lost = False
        self._seen = b""

    async def run(self) -> None:
        """Pass everything on until one side ends."""
        with contextlib.suppress(OSError):
            if self._proxy.mode is Mode.SWALLOW:
                await self._swallow_all()
                return
            host_reader, host_writer = await self._connect()
            self._writers.append(host_writer)
            ways = [
                asyncio.ensure_future(self._pass_on(self._client_reader, host_writer, is_up=True)),
                asyncio.ensure_future(self._pass_on(host_reader, self._client_writer, is_up=False)),
            ]
            try:
                # PostgreSQL's protocol has no half-closed connections: when one side has ended, so has the other.
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    def reset(self) -> None:
        """End both sides with RST."""
        if not self._is_reset:
            self._is_reset = True
            self._proxy.resets += 1
            for writer in self._writers:
                _abort(writer)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(LOOPBACK, self._proxy.target_port)
        except OSError:
            # Nobody listens behind us, and accepting cannot be undone.
            self.reset()
            raise

    async def _swallow_all(self) -> None:
        self.has_lost = True
        while data := await self._client_reader.read(CHUNK_BYTES):
            self._proxy.swallowed_bytes += len(data)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        proxy = self._proxy
        while data := await reader.read(CHUNK_BYTES):
            latency = proxy.latency_up if is_up else proxy.latency_down
            if latency:
                proxy.delayed_messages += 1
                await asyncio.sleep(latency)
            if proxy.mode is Mode.SWALLOW:
                proxy.swallowed_bytes += len(data)
                self.has_lost = True
                continue
            if is_up:
                self._look_for_message(data)
            elif self._loses_reply_to is not None:
                proxy.lost_replies.append(LostReply(time.monotonic(), self._loses_reply_to))
                self.reset()
                return
            writer.write(data)
            await writer.drain()

    def _look_for_message(self, data: bytes) -> None:
        wanted = self._proxy.lose_after
        if wanted is None:
            self._seen = b""
            return
        seen = self._seen + data
        if wanted in seen:
            self._proxy.lose_after = None
            self._loses_reply_to = wanted
        # A message may come in two pieces.
        self._seen = seen[-len(wanted) :]


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


async def _cancel_all_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _let_the_loop_turn()


async def _let_the_loop_turn() -> None:
    """Wait until a connection that was just accepted is a link, and one that was just closed is closed: a few turns each."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
