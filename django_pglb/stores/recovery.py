"""What one process does about a store that fails: ask no more, keep what is owed, and try again where nobody waits."""

from __future__ import annotations

import atexit
import logging
import random
import threading
import weakref
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from ..forks import after_fork
from .debts import Debts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .debts import Debt, Loss, Save

log = logging.getLogger("django_pglb.store")

# A dead server costs a process one timeout in so long.
RETRY_SECONDS = 1.0
# Other processes may still owe what their users wrote, and try as often as this one.
GRACE_SECONDS = 2 * RETRY_SECONDS
# So many saves take a server some milliseconds: no attempt may be taken for a failing one because it is long.
CHUNK = 500


class Condition(StrEnum):
    """How this process may use its store."""

    UP = "up"
    DOWN = "down"
    """Not at all: every request would wait for a timeout of its own."""
    RECOVERING = "recovering"
    """It takes saves, and is not believed yet: what other processes owe is missing there."""


class Recovery:
    """The condition of one store as this process sees it, and what it owes that store. Safe to use from any thread.

    `send(debts)` offers debts to the store and returns those that it has acknowledged; with none it asks whether the store answers.
    It raises whatever the client library raises. A thread runs exactly while the condition is not `UP`.
    A forked child starts anew: what its parent owes, its parent pays.
    """

    def __init__(self, send: Callable[[Sequence[Debt]], Sequence[Debt]], *, name: str) -> None:
        self._send = send
        self._name = name
        self._start_over()
        _recoveries.add(self)

    def _start_over(self) -> None:
        self._condition = Condition.UP
        self._debts = Debts()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self.errors: Counter[str] = Counter()
        """How often each class of error was seen."""
        # Protects the steps from one condition, and from what is owed, to the next. Nothing is sent under it, and nothing logged: a handler
        # may ask for pointers.
        self._lock = threading.Lock()

    @property
    def condition(self) -> Condition:
        return self._condition

    @property
    def owed(self) -> int:
        """How many keys wait for the store."""
        return len(self._debts)

    def refuses_loads(self) -> bool:
        """Say whether nobody can be told what binds them."""
        if self._condition is Condition.UP:
            return False
        self._ensure_running()
        return True

    def refuses_saves(self, saves: Sequence[Save], otherwise: Loss) -> bool:
        """Say whether the store is down, and if it is, owe it `saves`."""
        with self._lock:
            if self._condition is not Condition.DOWN:
                return False
            gave_up = self._debts.add(saves, otherwise)
        self._go_on(gave_up=gave_up)
        return True

    def fail(self, error: Exception, saves: Sequence[Save], otherwise: Loss) -> None:
        """Take the store for down after `error`, and owe what it was to save."""
        with self._lock:
            self.errors[type(error).__name__] += 1
            gave_up = self._debts.add(saves, otherwise)
            self._condition = Condition.DOWN
        self._go_on(gave_up=gave_up)

    def stop(self) -> None:
        """Ask the thread to end. What is owed stays owed."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the end of the thread, after `stop()`."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _go_on(self, *, gave_up: bool) -> None:
        if gave_up:
            log.error("More than %d saves are owed to cache %r: the oldest are given up.", len(self._debts) - 1, self._name)
        self._ensure_running()

    def _ensure_running(self) -> None:
        if self._thread is not None or self._stopped.is_set():
            return
        try:
            with self._lock:
                if self._thread is not None or self._condition is Condition.UP:
                    return
                thread = threading.Thread(target=self._run, name=f"django-pglb-store-{self._name}", daemon=True)
                thread.start()  # under the lock, which it does not need to start: there must never be two
                self._thread = thread
        except RuntimeError:
            # Too many threads, or the interpreter is about to end. The next request tries again.
            log.exception("Nobody can look after cache %r.", self._name)

    # --- In the thread ---

    def _run(self) -> None:
        # Jittered, so that processes that saw the same failure do not all come back in the same moment.
        while not self._stopped.wait(RETRY_SECONDS * random.uniform(0.8, 1.2)):
            if self._pay() and not self._stopped.wait(GRACE_SECONDS) and self._rise():
                return

    def _pay(self) -> bool:
        """Offer what is owed; return whether the store has acknowledged everything."""
        try:
            debts: Sequence[Debt] = ()
            while True:
                acknowledged = self._send(debts)
                debts = self._next(acknowledged)
                if not debts:
                    return True
        except Exception as error:  # noqa: BLE001 - in a thread of its own nobody interrupts, and it must not end
            with self._lock:
                self.errors[type(error).__name__] += 1
            return False

    def _next(self, acknowledged: Sequence[Debt]) -> list[Debt]:
        with self._lock:
            self._debts.settle(acknowledged)
            debts = self._debts.first(CHUNK)
            if not debts:
                # In the same step: from now on a save goes to the store, so none can be owed unseen.
                self._condition = Condition.RECOVERING
            return debts

    def _rise(self) -> bool:
        """Take the store for well, unless it has failed in its grace; return whether it is."""
        with self._lock:
            if self._condition is Condition.RECOVERING:
                self._condition, self._thread = Condition.UP, None
            return self._condition is Condition.UP


_recoveries: weakref.WeakSet[Recovery] = weakref.WeakSet()


def _start_over_in_child() -> None:
    for recovery in tuple(_recoveries):
        recovery._start_over()


def _stop_all() -> None:
    for recovery in tuple(_recoveries):
        recovery.stop()
        recovery.join()


after_fork(_start_over_in_child)
# Daemon threads are frozen wherever they are when the interpreter exits; ours leaves before that, within one timeout.
atexit.register(_stop_all)
