"""This process's open connections to each host, so that whoever waits for a host that does not answer can be let go.

1. A descriptor's number says nothing once its owner has closed it: it may be somebody else's by then. So a duplicate is kept, which
   is the same conversation for as long as it is open, whatever becomes of the number.
2. A duplicate that is left open keeps the conversation open. It is released with its handle, or with the connection's object.
3. Whoever takes a duplicate out of the registry owns it alone, and so it is with the answer that a conversation waits for. One dictionary
   operation does that, so there is no lock, which a finalizer in the same thread, or a fork in another, could find taken for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import weakref

from ..forks import after_fork


class Conversations:
    """The open connections of this process, by alias. Safe to use from any thread, from finalizers too.

    A forked child forgets its parent's connections and leaves them alone.
    """

    def __init__(self) -> None:
        self._duplicates: dict[str, dict[int, int]] = {}
        self._numbers = itertools.count()
        self._answers_due: dict[int, tuple[float, str]] = {}
        _registries.add(self)

    def register(self, alias: str, descriptor: int, owner: object | None = None) -> Conversation:
        """Note the connection whose socket is `descriptor`, until the handle is closed or garbage collected.

        With `owner`, the connection's object, the handle lives as long as that does. Raises `OSError` if there is no descriptor left.
        """
        conversation = Conversation(self, alias, next(self._numbers))
        self._known(alias)[conversation.number] = os.dup(descriptor)
        if owner is not None:
            weakref.finalize(owner, conversation.close).atexit = False
        return conversation

    def sever(self, alias: str) -> int:
        """End every conversation with `alias` at once: whoever waits for an answer gets an error. Returns how many were ended."""
        severed = 0
        known = self._known(alias)
        for number in tuple(known):
            duplicate = known.pop(number, None)
            if duplicate is not None:
                severed += _sever(duplicate)
        return severed

    def sever_late(self, now: float) -> int:
        """End each conversation whose answer was due by `now`. Returns how many were ended."""
        severed = 0
        # A copy is made at once; readers come and go.
        for number, (due, alias) in self._answers_due.copy().items():
            # Whoever takes the entry decides: if its owner has, the answer has come.
            if due <= now and self._answers_due.pop(number, None) is not None:
                duplicate = self._known(alias).pop(number, None)
                severed += duplicate is not None and _sever(duplicate)
        return severed

    def count(self, alias: str) -> int:
        """Return how many connections to `alias` are known."""
        return len(self._known(alias))

    def _known(self, alias: str) -> dict[int, int]:
        return self._duplicates.setdefault(alias, {})

    def _release(self, alias: str, number: int) -> None:
        duplicate = self._known(alias).pop(number, None)
        if duplicate is not None:
            # A program that becomes a daemon closes every descriptor that it finds.
            with contextlib.suppress(OSError):
                os.close(duplicate)

    def _forget_all(self) -> None:
        """Close, and do not shut down: the conversations are the parent's."""
        self._answers_due.clear()
        for known in self._duplicates.values():
            while known:
                os.close(known.popitem()[1])


class Conversation:
    """One connection's place in the registry. Keep it as long as the connection; close it when that is closed."""

    __slots__ = ("_alias", "_registry", "number")

    def __init__(self, registry: Conversations, alias: str, number: int) -> None:
        self._registry = registry
        self._alias = alias
        self.number = number

    def expect_answer(self, due: float) -> None:
        """Let the conversation be ended if `answer_came` is not called by then."""
        self._registry._answers_due[self.number] = (due, self._alias)

    def answer_came(self) -> bool:
        """Expect no answer any more. Says whether it was in time: if not, the conversation was ended, or is about to be."""
        return self._registry._answers_due.pop(self.number, None) is not None

    def close(self) -> None:
        """Release the connection. Cheap, and harmless when that was done before, by anyone."""
        self._registry._release(self._alias, self.number)

    def __del__(self) -> None:
        try:  # noqa: SIM105
            self.close()
        except Exception:  # noqa: BLE001, S110 - when the interpreter exits, all that this needs may be gone, `contextlib` too
            pass


def _sever(duplicate: int) -> bool:
    """Shut down the conversation and close `duplicate`. Says whether it was still open."""
    with contextlib.closing(socket.socket(fileno=duplicate)) as borrowed:
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False  # the other side was quicker
    return True


_registries: weakref.WeakSet[Conversations] = weakref.WeakSet()


def _forget_in_child() -> None:
    for registry in list(_registries):
        registry._forget_all()


after_fork(_forget_in_child)
