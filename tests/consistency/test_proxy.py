"""The proxy: every way in which it fails is seen by a client, and nothing else happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from django_pglb.testing import wait_until
from django_pglb.testing.ports import LOOPBACK

from .proxy import Mode, Proxy, ProxyLoop

SILENCE_SECONDS = 0.3


class Echo(socketserver.BaseRequestHandler):
    """Answers each message with itself, and remembers it."""

    received: list[bytes]

    def handle(self) -> None:
        # The proxy may reset it, as a network may.
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1024):
                self.received.append(data)
                self.request.sendall(data)


@pytest.fixture
def received() -> list[bytes]:
    """What the server behind the proxy has received."""
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[Proxy]:
    """A proxy in front of an echo."""
    handler = type("Handler", (Echo,), {"received": received})
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), handler) as server, ProxyLoop() as loop:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield loop.proxy(server.server_address[1])
        server.shutdown()
        thread.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((LOOPBACK, proxy.port), timeout=5)


def ask(client: socket.socket, message: bytes) -> bytes:
    client.sendall(message)
    return client.recv(1024)


@pytest.mark.parametrize("turns", range(8))
def test_connection_that_is_just_being_accepted_is_reset_too(proxy: Proxy, turns: int) -> None:
    """However far the loop has got with it; one that nobody closes would fail this test with a warning."""

    async def connect_and_refuse() -> socket.socket:
        client = connect(proxy)  # the kernel accepts it
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.ensure_future(proxy._change(Mode.REFUSE))
        return client

    with proxy._loop.call(connect_and_refuse()) as client, pytest.raises(ConnectionError):
        ask(client, b"1")
    gc.collect()


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_SECONDS)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_passes_messages_both_ways(proxy: Proxy) -> None:
    """What is sent arrives, and the answer comes back."""
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"


def test_end_of_a_client_ends_its_link(proxy: Proxy) -> None:
    """A proxy keeps no connection whose client has gone."""
    with connect(proxy) as client:
        ask(client, b"hello")
        assert proxy.connections == 1
    wait_until(lambda: proxy.connections == 0, timeout=10, what="the link to end")


def test_refuses_and_takes_back(proxy: Proxy) -> None:
    """While it refuses, open connections are reset and new ones refused; then the same port serves again."""
    with connect(proxy) as client:
        ask(client, b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.pass_on()
    with connect(proxy) as client:
        assert ask(client, b"again") == b"again"


def test_swallows_on_open_and_new_connections(proxy: Proxy, received: list[bytes]) -> None:
    """Nothing is answered and nothing arrives; on healing, who has lost something is reset, who has not goes on."""
    with connect(proxy) as talker, connect(proxy) as idler:
        ask(talker, b"1")
        ask(idler, b"2")
        proxy.swallow()
        talker.sendall(b"lost")
        assert is_silent(talker)
        with connect(proxy) as late:
            late.sendall(b"lost too")
            assert is_silent(late)
            assert received == [b"1", b"2"]
            assert proxy.swallowed_bytes == len(b"lostlost too")
            proxy.pass_on()
            for client in (talker, late):
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert ask(idler, b"3") == b"3"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_is_slow(proxy: Proxy, direction: str) -> None:
    """A message takes at least as long as it was told."""
    proxy.slow(**{direction: 0.2})
    with connect(proxy) as client:
        started = time.monotonic()
        assert ask(client, b"hello") == b"hello"
        assert time.monotonic() - started >= 0.2


def test_resets_all(proxy: Proxy) -> None:
    """Open connections are reset, new ones served."""
    with connect(proxy) as client, connect(proxy) as other:
        ask(client, b"hello")
        ask(other, b"hello")
        proxy.reset_all()
        for each in (client, other):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"hello"
    assert proxy.resets == 2


def test_loses_one_reply(proxy: Proxy, received: list[bytes]) -> None:
    """The message arrives, its sender is reset instead of answered, and everybody else is served."""
    with connect(proxy) as client, connect(proxy) as other:
        ask(client, b"hello")
        proxy.lose_reply_to(b"COMMIT")
        assert ask(other, b"SELECT") == b"SELECT"
        client.sendall(b"COM")
        wait_until(lambda: received[-1] == b"COM", timeout=5, what="the first half to arrive")
        assert client.recv(3) == b"COM"
        client.sendall(b"MIT;")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert received[-1] == b"MIT;"
        assert ask(other, b"COMMIT") == b"COMMIT"
    assert [lost.message for lost in proxy.lost_replies] == [b"COMMIT"]


def test_nobody_behind_it_resets_the_client() -> None:
    """A proxy whose host is down accepts, as it must, and resets at once."""
    with ProxyLoop() as loop:
        proxy = loop.proxy(1)
        # On a quick day it is reset before it has noticed that it was accepted.
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
