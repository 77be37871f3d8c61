"""A client that costs little: it shares the machine's cores with the site."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple, Self

TIMEOUT_SECONDS = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nset-cookie: *([^=\r\n]+)=([^;\r\n]*)", re.IGNORECASE)
_VALUE = re.compile(rb"\r\nx-value: *(\d+)", re.IGNORECASE)
_SERVER = re.compile(rb"\r\nx-server: *(\d+)", re.IGNORECASE)


class Device:
    """One browser of one user: its cookies. Several clients may use it at a time."""

    def __init__(self, user: int, session: str | None = None) -> None:
        self.user = user
        self.cookies = {} if session is None else {"sessionid": session}
        self._encoded = self._encode()

    def header(self) -> bytes:
        """Return the header that carries its cookies."""
        return self._encoded

    def learn(self, head: bytes) -> None:
        """Keep the cookies that a response sets."""
        for name, value in _COOKIE.findall(head):
            # Rebound, not changed: another client may be sending them.
            self.cookies = {**self.cookies, name.decode(): value.decode()}
            self._encoded = self._encode()

    def _encode(self) -> bytes:
        text = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return f"Cookie: {text}\r\n".encode() if text else b""


class Answer(NamedTuple):
    """A response: its status, the reader's register as it shows it, and the port of the server that this was read from."""

    status: int
    value: int
    server: int


class Wire:
    """One persistent connection to the site. Not for two threads at a time."""

    def __init__(self, port: int, timeout: float = TIMEOUT_SECONDS) -> None:
        self._port = port
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next request open a new connection."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def request(self, method: str, path: str, device: Device) -> Answer:
        """Send one request and return its answer. Raises `OSError`."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), self._timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = b"Content-Length: 0\r\n" if method == "POST" else b""
        self._socket.sendall(b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s\r\n" % (method.encode(), path.encode(), device.header(), length))
        head = self._receive(self._socket)
        device.learn(head)
        value, server = _VALUE.search(head), _SERVER.search(head)
        return Answer(int(head[9:12]), int(value[1]) if value else -1, int(server[1]) if server else 0)

    def _receive(self, opened: socket.socket) -> bytes:
        """Read a response to its end; return its head."""
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more(opened)
        head = received[:end]
        length = _LENGTH.search(head)
        if length is None:
            raise ConnectionError(f"a response without a length: {head[:200]!r}")
        missing = int(length[1]) - (len(received) - end - 4)
        while missing > 0:
            missing -= len(self._more(opened))
        return head

    def _more(self, opened: socket.socket) -> bytes:
        received = opened.recv(65_536)
        if not received:
            raise ConnectionError("the site has closed the connection in the middle")
        return received
