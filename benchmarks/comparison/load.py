"""The load: clients that ask for pages, and write, as fast as the site answers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from ..background import Background
from ..wire import Device, Wire
from .request import Request

CLIENTS = 8
WRITES = 0.1
# A connection stays with the worker that took it, so clients that kept theirs might all end up with the same one.
REQUESTS_PER_CONNECTION = 20
# A site that hangs makes errors, and not a run without an end.
TIMEOUT_SECONDS = 5.0
# Of a client that got an error: a site that fails at once must not be asked more than one that works.
PAUSE_SECONDS = 0.05


class Load(Background):
    """Clients at work from `with` to its end, each request by a device chosen at random. `requests` may be read at any time."""

    def __init__(self, port: int, devices: Sequence[Device], *, path: str = "/", writes: float = WRITES) -> None:
        super().__init__("client", CLIENTS)
        self.requests: list[Request] = []
        self._port = port
        self._devices = devices
        self._path = path
        self._writes = writes

    def work(self) -> None:
        while not self.stopping.is_set():
            with Wire(self._port, TIMEOUT_SECONDS) as wire:
                for _ in range(REQUESTS_PER_CONNECTION):
                    if self.stopping.is_set():
                        return
                    request = send(wire, random.choice(self._devices), path=self._path, writes=self._writes)
                    self.requests.append(request)
                    if not request.is_answered:
                        time.sleep(PAUSE_SECONDS)
                        break


def send(wire: Wire, device: Device, *, path: str = "/", writes: float = WRITES) -> Request:
    """Ask for the page, or write, which is the case of so many at random; an error is kept and not raised."""
    is_write = random.random() < writes
    started = time.monotonic()
    try:
        answer = wire.request("POST", "/write/", device) if is_write else wire.request("GET", path, device)
    except OSError as error:
        return Request(device.user, is_write, started, time.monotonic(), error=type(error).__name__)
    ended = time.monotonic()
    wrong = "" if answer.status == 200 else f"status {answer.status}"
    return Request(device.user, is_write, started, ended, answer.status, answer.value, answer.server, wrong)


def devices_of(sessions: Sequence[Sequence[str]]) -> list[Device]:
    """Return the devices that have these session keys, user by user, and no other cookie yet."""
    return [Device(user, key) for user, keys in enumerate(sessions) for key in keys]
