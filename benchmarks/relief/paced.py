"""The load: so many requests per second, however long the answers take."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

from django_pglb.testing import wait_until

from ..background import Background
from ..comparison.load import REQUESTS_PER_CONNECTION, TIMEOUT_SECONDS, send
from ..comparison.request import Request
from ..wire import Device, Wire

# More than are ever under way at once at a rate that leaves room; those that wait for their turn cost nothing.
CLIENTS = 32
# For what is still under way when the last request has been sent.
ENDING_SECONDS = 60.0


class Turn(NamedTuple):
    """One request, and when it should have started: later only if every client was busy."""

    due: float
    request: Request


class PacedLoad(Background):
    """Evenly spaced requests to one port after another, `seconds` to each, each request by a device chosen at random.

    The pace is kept from `with` on, whatever the answers take; leaving the block earlier ends it. `turns` may be read at any time.
    """

    def __init__(self, ports: Sequence[int], devices: Sequence[Device], *, rate: float, seconds: float) -> None:
        super().__init__("client", CLIENTS)
        self.turns: list[Turn] = []
        self._ports = ports
        self._devices = devices
        self._rate = rate
        self._per_port = round(rate * seconds)
        # One for all clients: whoever is free takes the next.
        self._numbers = iter(range(self._per_port * len(ports)))

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        return super().__enter__()

    def begins_at(self, place: int) -> float:
        """Return the moment from which on requests go to the port at this place."""
        return self._due(place * self._per_port)

    def wait_until_answered(self, place: int) -> None:
        """Return when nothing is under way any more to the port at this place."""
        end = self.begins_at(place + 1)
        time.sleep(max(0, end - time.monotonic()))
        wait_until(
            lambda: sum(turn.due < end for turn in self.turns) == (place + 1) * self._per_port,
            timeout=ENDING_SECONDS,
            what="all answers of a site",
        )

    @property
    def requests(self) -> list[Request]:
        """The requests as they were made."""
        return [turn.request for turn in self.turns]

    def _due(self, number: int) -> float:
        return self._begin + number / self._rate

    def work(self) -> None:
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(port, TIMEOUT_SECONDS)) for port in self._ports]
            for number in self._numbers:
                due = self._due(number)
                if self.stopping.wait(max(0, due - time.monotonic())):
                    return
                wire = wires[number // self._per_port]
                request = send(wire, random.choice(self._devices))
                self.turns.append(Turn(due, request))
                if not request.is_answered or random.random() < 1 / REQUESTS_PER_CONNECTION:
                    wire.close()
