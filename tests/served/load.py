"""The load: clients that read and raise their users' registers as fast as the site answers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from .client import Device, Wire
from .history import Operation
from .prepare import USERS

CLIENTS = 8
DEVICES_PER_USER = 2
WRITES = 0.1
# A connection stays with the worker that took it, so clients that kept theirs might all end up with the same one.
REQUESTS_PER_CONNECTION = 20


def sign_in_everybody(port: int, users: int = USERS) -> list[Device]:
    """Return two signed-in devices of each of the first `users`."""
    devices = [Device(user) for user in range(users) for _ in range(DEVICES_PER_USER)]

    def sign_in(some: Sequence[Device]) -> None:
        with Wire(port) as wire:
            for device in some:
                answer = wire.sign_in(device)
                assert answer.status == 302, answer

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(sign_in, [devices[number::CLIENTS] for number in range(CLIENTS)]))
    return devices


class Clients:
    """Threads with a connection each that do `do_one` again and again, from `with` to its end. `failures` grows meanwhile."""

    def __init__(self, port: int, count: int = CLIENTS) -> None:
        self.failures: list[str] = []
        self._port = port
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=[number], name=f"client {number}") for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def do_one(self, client: int, wire: Wire) -> None:
        """Do one request."""
        raise NotImplementedError

    def _work(self, client: int) -> None:
        wire = Wire(self._port)
        while not self._stopping.is_set():
            try:
                for _ in range(REQUESTS_PER_CONNECTION):
                    if not self._stopping.is_set():
                        self.do_one(client, wire)
                wire.close()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must show, and the others go on
                self.failures.append(f"{type(error).__name__}: {error}")
                wire.close()
        wire.close()


class Load(Clients):
    """Clients at work. `operations` and `failures` may be read at any time."""

    def __init__(self, port: int, devices: Sequence[Device], *, clients: int = CLIENTS) -> None:
        super().__init__(port, clients)
        self.operations: list[Operation] = []
        self._devices = devices

    @property
    def reads(self) -> list[Operation]:
        return [operation for operation in tuple(self.operations) if not operation.is_write]

    @property
    def writes(self) -> list[Operation]:
        return [operation for operation in tuple(self.operations) if operation.is_write]

    def run_for(self, seconds: float) -> None:
        """Let the clients work for so long, or until one of them fails."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.failures:
            time.sleep(0.05)

    def do_one(self, client: int, wire: Wire) -> None:
        device = random.choice(self._devices)
        is_write = random.random() < WRITES
        started = time.monotonic()
        answer = wire.request("POST" if is_write else "GET", "/register/", device)
        ended = time.monotonic()
        if answer.status != 200:
            self.failures.append(f"user {device.user}: status {answer.status}: {str(answer.body)[:300]}")
            return
        self.operations.append(
            Operation(
                user=device.user,
                is_write=is_write,
                started=started,
                ended=ended,
                value=answer.body["value"],
                aliases=answer.aliases,
                reasons=answer.reasons,
                is_bound=answer.is_bound,
                worker=answer.worker,
            )
        )
