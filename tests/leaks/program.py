"""What a random program is made of. Each node says what happens; indexes count modulo what there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Change = Literal[
    "use_primary",
    "use_replicas",
    "ignore_writes",
    "replica_reads",
    "routing_session",
    "routing_session of somebody",
    "always job",
    "sticky job",
    "delayed job",
]
Form = Literal["with", "decorator", "eager task"]
CHANGES: tuple[Change, ...] = Change.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Look:
    """Compare what is in force."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let others run."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read from the database."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write to the database."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise; `is_exit`: what no `except Exception` catches."""

    is_exit: bool


@dataclass(frozen=True, slots=True)
class Hang:
    """Wait to be cancelled, where somebody will."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Begin a generator that is suspended within the first of `changes`, and within one more each time that it goes on."""

    changes: tuple[Change, ...]
    is_async: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a suspended generator go on here, whoever began it."""

    index: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a suspended generator here, whoever began it."""

    index: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Drop the last reference to a suspended generator; `in_cycle`: to what only the garbage collector finds."""

    index: int
    in_cycle: bool


@dataclass(frozen=True, slots=True)
class Collect:
    """Collect garbage here."""


@dataclass(frozen=True, slots=True)
class Within:
    """Do `body` within a change."""

    change: Change
    form: Form
    body: Body


@dataclass(frozen=True, slots=True)
class Request:
    """Do `body` in the view of a request; `answers`: an error becomes a response, as Django's handlers have it."""

    answers: bool
    body: Body


@dataclass(frozen=True, slots=True)
class Guarded:
    """Do `body`, and catch what it raises."""

    body: Body


@dataclass(frozen=True, slots=True)
class Atomic:
    """Do `body` in a transaction on the primary."""

    body: Body


@dataclass(frozen=True, slots=True)
class Crossing:
    """Do `body` on the other side: async code by `async_to_sync`, or sync code by `sync_to_async`."""

    body: Body


@dataclass(frozen=True, slots=True)
class Threads:
    """Do all `bodies` at once in threads of their own; `inherits`: in copies of the context that is in force here."""

    inherits: bool
    bodies: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Tasks:
    """Do all `bodies` at once in tasks of their own; `cancels`: those that hang are cancelled then. In sync code, in copied contexts."""

    cancels: bool
    bodies: tuple[Body, ...]


Node = (
    Look
    | Pause
    | Read
    | Write
    | Fail
    | Hang
    | Suspend
    | Resume
    | Close
    | Abandon
    | Collect
    | Within
    | Request
    | Guarded
    | Atomic
    | Crossing
    | Threads
    | Tasks
)
Body = tuple[Node, ...]


class Author:
    """Writes random programs: all choices come from the seed. `leaves` are what they may do. `is_flat`: they do much, and nest little."""

    def __init__(self, seed: int, leaves: Sequence[Leaf] | None = None, *, is_flat: bool = False) -> None:
        self._goes_on, self._ends_here = (0.97, 0.85) if is_flat else (0.8, 0.6)
        self._leaves = leaves or LEAVES
        self._choice = random.Random(seed)
        # A few only, so that blocks of the same kind meet.
        self._changes = self._choice.sample(CHANGES, self._choice.randint(1, 4))
        self._left = 0

    def write_unit(self, size: int) -> Node:
        """Write a program of about `size` nodes, whose first is a unit of work or an override.

        Whatever is done at all is done in there: a generator that is suspended under no block changes its consumer's context for good.
        """
        self._left = size
        return self._within() if self._is(0.5) else self._request()

    def _is(self, probability: float) -> bool:
        return self._choice.random() < probability

    def _body(self) -> Body:
        nodes = []
        while self._left > 0 and self._is(self._goes_on):
            self._left -= 1
            nodes.append(self._node())
        return tuple(nodes)

    def _node(self) -> Node:
        return self._choice.choice(self._leaves)(self) if self._is(self._ends_here) else self._choice.choice(COMPOUNDS)(self)

    def _bodies(self) -> tuple[Body, ...]:
        return tuple(self._body() for _ in range(self._choice.randint(1, 3)))

    def _change(self) -> Change:
        return self._choice.choice(self._changes)

    def _index(self) -> int:
        return self._choice.randrange(4)

    def _within(self) -> Node:
        return Within(self._change(), self._choice.choice(FORMS), self._body())

    def _request(self) -> Node:
        return Request(self._is(0.5), self._body())


FORMS: tuple[Form, ...] = ("with", "decorator", "eager task")
Leaf = Callable[[Author], Node]


def _suspend(author: Author, *, is_async: bool = False) -> Node:
    return Suspend(tuple(author._change() for _ in range(author._choice.randint(1, 3))), is_async)


_PLAIN: tuple[Leaf, ...] = (
    lambda author: Fail(author._is(0.3)),
    lambda author: Hang(),
    _suspend,
    lambda author: Resume(author._index()),
    lambda author: Close(author._index()),
    lambda author: Abandon(author._index(), author._is(0.5)),
    lambda author: Collect(),
)
LEAVES: tuple[Leaf, ...] = (
    *_PLAIN,
    lambda author: Look(),
    lambda author: Pause(),
    lambda author: Pause(),
    lambda author: _suspend(author, is_async=True),
)
# No async generators: what was written in one that nobody closes is saved when its loop finds the time.
LEAVES_WITH_DATABASE: tuple[Leaf, ...] = (*_PLAIN, *[lambda author: Read()] * 4, *[lambda author: Write()] * 3)
# What ends a lease, and nothing that ends a program.
LEAVES_OF_READERS: tuple[Leaf, ...] = (
    *[lambda author: Read()] * 8,
    lambda author: Write(),
    lambda author: Pause(),
    lambda author: Atomic(author._body()),
)
COMPOUNDS: tuple[Leaf, ...] = (
    Author._within,
    Author._within,
    Author._request,
    lambda author: Guarded(author._body()),
    lambda author: Crossing(author._body()),
    lambda author: Threads(author._is(0.5), author._bodies()),
    lambda author: Tasks(author._is(0.5), author._bodies()),
)
