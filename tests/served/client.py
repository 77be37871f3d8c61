"""A browser's view of the served site: devices with cookies, and connections that persist."""

from __future__ import annotations

import http.client
import json
import re
from http.cookies import SimpleCookie
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from .prepare import PASSWORD, username
from .tell import BOUND, WORKER

_TIMING = re.compile(r'pglb;desc="(\S+) (\S+) \d+"')
TIMEOUT_SECONDS = 30


class Device:
    """One browser of one user: its cookies. Several clients may use it at a time."""

    def __init__(self, user: int) -> None:
        self.user = user
        self.cookies: dict[str, str] = {}

    def headers(self) -> dict[str, str]:
        """Return the headers that say who asks."""
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}

    def learn(self, set_cookies: list[str]) -> None:
        # Rebound, not changed: another client may be sending them.
        for header in set_cookies:
            parsed = SimpleCookie(header)
            self.cookies = {**self.cookies, **{name: morsel.value for name, morsel in parsed.items()}}


class ApiClient(Device):
    """A program of one user: it sends an Authorization header and keeps no cookie."""

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {username(self.user)}"}

    def learn(self, set_cookies: list[str]) -> None:
        """Ignore them, as such programs do."""


class Answer(NamedTuple):
    """A response, and what it says of how it came about."""

    status: int
    body: Any
    aliases: tuple[str, ...]
    reasons: tuple[str, ...]
    is_bound: bool
    worker: str
    location: str | None


class Wire:
    """One persistent connection to the site. Not for two threads at a time."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def request(self, method: str, path: str, device: Device | None = None, **fields: str) -> Answer:
        """Send one request and return its answer. Raises what `http.client` raises."""
        headers = device.headers() if device is not None else {}
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, urlencode(fields) if method == "POST" else None, headers)
        response = self._connection.getresponse()
        text = response.read()
        if device is not None:
            device.learn(response.headers.get_all("Set-Cookie") or [])
        return _answer(response, text)

    def sign_in(self, device: Device) -> Answer:
        return self.request("POST", "/sign_in/", device, username=username(device.user), password=PASSWORD)


def _answer(response: http.client.HTTPResponse, text: bytes) -> Answer:
    served = _TIMING.findall(response.headers.get("Server-Timing", ""))
    is_json = "json" in response.headers.get("Content-Type", "")
    return Answer(
        status=response.status,
        body=json.loads(text) if is_json else text.decode(errors="replace"),
        aliases=tuple(alias for alias, _ in served),
        reasons=tuple(reason for _, reason in served),
        is_bound=response.headers.get(BOUND) == "yes",
        worker=response.headers.get(WORKER, ""),
        location=response.headers.get("Location"),
    )
