"""An event loop for probes, in which nothing that hangs holds up anything else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Resolve = Callable[..., list[Any]]
    Key = tuple[Any, ...]


class ProbeLoop(asyncio.SelectorEventLoop):
    """Resolves each name in a daemon thread of its own.

    asyncio's own way is a pool of threads, in which a few names that hang stop all others, and which the interpreter
    joins before it exits. `resolve` is `socket.getaddrinfo` or has its signature.
    """

    def __init__(self, resolve: Resolve = socket.getaddrinfo) -> None:
        super().__init__()
        self._resolve = resolve
        self._lookups: dict[Key, asyncio.Future[list[Any]]] = {}

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:  # noqa: A002
        # A name that hangs for minutes is asked for at every probe: one thread waits for it, not hundreds.
        key = (host, port, family, type, proto, flags)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = self._start_lookup(key)
        return await asyncio.shield(lookup)

    def _start_lookup(self, key: Key) -> asyncio.Future[list[Any]]:
        lookup: asyncio.Future[list[Any]] = self.create_future()
        threading.Thread(target=self._look_up, args=(key, lookup), name="django-pglb-resolver", daemon=True).start()
        return lookup

    def _look_up(self, key: Key, lookup: asyncio.Future[list[Any]]) -> None:
        """Runs in a thread of its own."""
        answer: list[Any] | None = None
        error: Exception | None = None
        try:
            answer = self._resolve(*key)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is the answer
            error = caught
        # By now the loop may be closed.
        with contextlib.suppress(RuntimeError):
            self.call_soon_threadsafe(self._end_lookup, key, lookup, answer, error)

    def _end_lookup(self, key: Key, lookup: asyncio.Future[list[Any]], answer: list[Any] | None, error: Exception | None) -> None:
        self._lookups.pop(key, None)
        if lookup.cancelled():
            return
        if error is None:
            lookup.set_result(answer or [])
        else:
            lookup.set_exception(error)
            lookup.exception()  # nobody may be waiting any more, and asyncio would complain
