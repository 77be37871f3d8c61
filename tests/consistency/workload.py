"""Clients that read and write their users' registers, at a pace, and note everything in the history."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http.client import HTTPException
from math import inf
from typing import Self

from tests.served.client import Answer, ApiClient, Device, Wire
from tests.served.load import Clients, sign_in_everybody
from tests.served.prepare import USERS, username

from .history import HistoryFile, Operation
from .wording import HOOK

CLIENTS = 8
BROWSER_USERS = 16
API_USERS = 6
WRITES = 0.15
# One user in six never writes, and one in six at the beginning only: those have pointers, but nothing that a replica could lack
# when the fault comes.
READERS_ONE_IN = 6
QUIET_AFTER_SECONDS = 2.0
# A mean pause, so that two cores serve the load with room to spare: a queue would look like the fault's doing.
PAUSE_SECONDS = 0.04
# Opening a connection again is cheap; doing so without a pause while nobody listens is not.
PAUSE_AFTER_ERROR_SECONDS = 0.1

# Each user reads what another writes, too: readers follow writers.
USERS_AT_WORK = [*range(BROWSER_USERS), *range(USERS - API_USERS, USERS)]
FOLLOWED = dict(zip(USERS_AT_WORK, [*USERS_AT_WORK[2:], *USERS_AT_WORK[:2]], strict=True))

WRITE_KINDS = ("orm", "raw", "hook")
READ_KINDS: Mapping[str, float] = {"orm": 5, "iterator": 2, "raw": 2, "slow": 0.5}


class Workload(Clients):
    """Two browsers for each of some users, and programs of others, shared by all clients.

    Every choice of a client comes from `seed` and its number. Each write publishes a task of one of `task_levels`, if there are any.
    """

    def __init__(
        self, port: int, history: HistoryFile, *, seed: int, read_kinds: Mapping[str, float] = READ_KINDS, task_levels: Sequence[str] = ()
    ) -> None:
        super().__init__(port, CLIENTS)
        self._history = history
        self._weighted_reads = list(read_kinds), list(read_kinds.values())
        self._choices = [random.Random(f"{seed}:{client}") for client in range(CLIENTS)]
        self._task_levels = task_levels
        self._numbers = itertools.count(1)
        self._quiet_from = inf
        self._browsers: Sequence[Device] = sign_in_everybody(port, BROWSER_USERS)
        self._programs: Sequence[Device] = [ApiClient(user) for user in USERS_AT_WORK[BROWSER_USERS:]]

    def __enter__(self) -> Self:
        self._quiet_from = time.monotonic() + QUIET_AFTER_SECONDS
        return super().__enter__()

    def do_one(self, client: int, wire: Wire) -> None:
        choice = self._choices[client]
        time.sleep(choice.expovariate(1 / PAUSE_SECONDS))
        device, operation = self._choose(client, choice)
        self._history.invoke(operation)
        self._history.complete(self._ask(wire, device, operation))

    def _choose(self, client: int, choice: random.Random) -> tuple[Device, Operation]:
        """Return who asks for what next."""
        device, name = self._choose_device(client, choice)
        number = next(self._numbers)
        is_write = choice.random() < WRITES and self._may_write(device.user)
        kind = choice.choice(WRITE_KINDS) if is_write else choice.choices(*self._weighted_reads)[0]
        return device, Operation(
            number=number,
            client=client,
            user=device.user,
            device=name,
            kind=kind,
            is_write=is_write,
            tokens=_tokens_of(number, kind) if is_write else (),
            task=self._task_levels[number % len(self._task_levels)] if is_write and self._task_levels else "",
            started=time.monotonic(),
        )

    def _may_write(self, user: int) -> bool:
        if user % READERS_ONE_IN == 0:
            return False
        return user % READERS_ONE_IN != 1 or time.monotonic() < self._quiet_from

    def _choose_device(self, client: int, choice: random.Random) -> tuple[Device, str]:
        number = choice.randrange(len(self._browsers) + len(self._programs))
        if number < len(self._browsers):
            return self._browsers[number], f"browser{number}"
        program = self._programs[number - len(self._browsers)]
        return program, f"program{program.user}/{client}"

    def _ask(self, wire: Wire, device: Device, operation: Operation) -> Operation:
        """Send the request, and return what became of it."""
        try:
            if operation.is_write:
                task = {"task": operation.task} if operation.task else {}
                answer = wire.request("POST", f"/write/{operation.kind}/", device, token=operation.tokens[0], **task)
            else:
                answer = wire.request("GET", f"/read/{operation.kind}/?follow={username(FOLLOWED[device.user])}", device)
        except (OSError, HTTPException, ValueError) as error:
            # The next request opens a new connection.
            wire.close()
            ended = time.monotonic()
            time.sleep(PAUSE_AFTER_ERROR_SECONDS)
            return replace(operation, ended=ended, error=f"{type(error).__name__}: {error}")
        return _completed(operation, answer, time.monotonic())


def _tokens_of(number: int, kind: str) -> tuple[str, ...]:
    """Return what a write of this kind puts into the database."""
    return (f"{number}", f"{number}{HOOK}") if kind == "hook" else (f"{number}",)


def _completed(operation: Operation, answer: Answer, ended: float) -> Operation:
    is_well = answer.status == 200
    shown = answer.body if is_well and not operation.is_write else {}
    return replace(
        operation,
        ended=ended,
        status=answer.status,
        error="" if is_well else str(answer.body)[:500],
        value=shown.get("value", 0),
        tokens=tuple(shown.get("tokens", operation.tokens)),
        hosts=answer.aliases,
        reasons=answer.reasons,
        is_bound=answer.is_bound,
        worker=answer.worker,
    )
