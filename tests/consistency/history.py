"""What clients asked and were told: one JSON line for each invocation and one for each completion."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import IO, Any, Self

from .wording import ROWS_DELIVERED

OK = 200
# A request that nobody answered has no status of HTTP's.
NO_ANSWER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request. Times are seconds of the run's one monotonic clock; `ended` is infinite while no answer has come.

    `device` is one browser or one connection of a program; `tokens` are those that a write gave, or that a read saw.
    """

    number: int
    client: int
    user: int
    device: str
    kind: str
    is_write: bool
    started: float
    tokens: tuple[str, ...] = ()
    ended: float = inf
    status: int = NO_ANSWER
    error: str = ""
    value: int = 0
    hosts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    is_bound: bool = False
    worker: str = ""
    task: str = ""
    """The level of the task that a write publishes, which must find the last of its tokens."""

    @property
    def is_acknowledged(self) -> bool:
        """Whether the site has answered that all is well."""
        return self.status == OK

    @property
    def has_failed(self) -> bool:
        """Whether the client was told of an error, or nothing."""
        return self.ended < inf and not self.is_acknowledged

    @property
    def has_delivered_rows(self) -> bool:
        """Whether it failed when the view had some of the rows already."""
        return ROWS_DELIVERED in self.error

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def is_on_replicas(self) -> bool:
        return bool(self.hosts) and "default" not in self.hosts

    @property
    def is_of_browser(self) -> bool:
        """Whether the client keeps cookies."""
        return self.device.startswith("browser")

    def overlaps(self, start: float, end: float) -> bool:
        """Say whether some of it was between the two times."""
        return self.started < end and self.ended > start

    def __str__(self) -> str:
        what = f"{'write' if self.is_write else 'read'} {self.kind}"
        where = ", ".join(f"{host} ({reason})" for host, reason in zip(self.hosts, self.reasons, strict=True)) or "nowhere known"
        told = f"{'wrote' if self.is_write else 'saw'} {_listed(self.tokens)}" if self.is_acknowledged else f"{self.status} {self.error}"
        return (
            f"#{self.number} {self.started:.3f}–{self.ended:.3f} user {self.user} {self.device} client {self.client}"
            f" worker {self.worker or '?'}: {what} at {where}: {told}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One run of a task that looked for the token of its publisher. One that is delivered again runs again."""

    token: str
    level: str
    has_found: bool
    hosts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    came_again: bool = False
    redelivered: bool = False
    """The worker that had its message before has died."""
    worker: str = ""

    @property
    def is_on_replicas(self) -> bool:
        return bool(self.hosts) and "default" not in self.hosts

    def __str__(self) -> str:
        where = ", ".join(f"{host} ({reason})" for host, reason in zip(self.hosts, self.reasons, strict=True)) or "nowhere known"
        again = ", came again" if self.came_again else ""
        return f"{self.level} task for {self.token} at {where}, worker {self.worker or '?'}{again}"


INVOCATION_FIELDS = ("number", "client", "user", "device", "kind", "is_write", "started")


def _listed(tokens: tuple[str, ...], most: int = 6) -> str:
    shown = ", ".join(tokens[-most:])
    return f"{len(tokens)} tokens … {shown}" if len(tokens) > most else (shown or "no tokens")


@dataclass(slots=True)
class HistoryFile:
    """Where the history goes while it happens. Safe to use from any thread."""

    path: Path
    _file: IO[str] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)  # protects a line against another's middle

    def __enter__(self) -> Self:
        self._file = self.path.open("w")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def invoke(self, operation: Operation) -> None:
        """Note that a request is about to be sent."""
        known = {name: getattr(operation, name) for name in INVOCATION_FIELDS}
        if operation.is_write:
            known["tokens"] = operation.tokens
        self._write({"type": "invoke", **known})

    def complete(self, operation: Operation) -> None:
        """Note how it ended."""
        self._write({"type": "complete", **asdict(operation)})

    def note(self, **what: object) -> None:
        """Note something that is no request: the fault, the seed."""
        self._write({"type": "note", **what})

    def flush(self) -> None:
        """Let whoever reads the file see everything so far."""
        self._file.flush()

    def _write(self, entry: dict[str, object]) -> None:
        line = json.dumps(entry) + "\n"
        with self._lock:
            self._file.write(line)


def read_history(path: Path) -> list[Operation]:
    """Return the operations in a file, in the order of their invocations; those without a completion are still running."""
    found: dict[int, Operation] = {}
    with path.open() as lines:
        for entry in (json.loads(line) for line in lines):
            if entry["type"] != "note":
                found[entry["number"]] = _operation(entry)
    return list(found.values())


def task_run(entry: Mapping[str, Any]) -> TaskRun:
    """Return what a worker has noted in JSON."""
    return TaskRun(**_with_tuples(entry))


def _operation(entry: Mapping[str, Any]) -> Operation:
    return Operation(**{name: value for name, value in _with_tuples(entry).items() if name != "type"})


def _with_tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def by_user(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Give each user's operations, in the order of their beginnings."""
    users: dict[int, list[Operation]] = {}
    for operation in sorted(operations, key=lambda operation: operation.started):
        users.setdefault(operation.user, []).append(operation)
    yield from users.values()
