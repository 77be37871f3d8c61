"""Keeps a streaming response in its request's unit of work, for as long as it is consumed.

Its generator runs in steps, between which the thread or task belongs to whoever consumes it. Each step gets the request's scope back,
and what it wrote is saved before its chunk leaves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.http import StreamingHttpResponse

from . import pointers
from .context import SuspendedScope, current_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from django.http.response import HttpResponseBase

    from .core.routing_session import RoutingSession

# The event loop keeps weak references only: https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
_closing: set[asyncio.Task[None]] = set()


def keep_streaming(response: HttpResponseBase, routing: RoutingSession) -> bool:
    """Let `response` go on in `routing` while it is consumed. Says whether it does: not if it is complete, or sends a file."""
    if not isinstance(response, StreamingHttpResponse) or getattr(response, "file_to_stream", None) is not None:
        # A web server may send the file itself (`wsgi.file_wrapper`), and nothing of ours would run.
        return False
    # The block of `ATOMIC_REQUESTS` has ended: one that is open later is the generator's own.
    routing.view_atomic = frozenset()
    routing.streams = True
    # Django's own wrappers are made of these when they are consumed, and close nothing.
    raw: Any = response
    stream = AsyncStream(raw._iterator, routing) if response.is_async else SyncStream(raw._iterator, routing)
    raw._iterator = stream
    raw._resource_closers[:] = [*(stream.in_scope(closer) for closer in raw._resource_closers), stream.close]
    return True


class Stream:
    """What both kinds share: the chunks, and the unit of work that they belong to."""

    def __init__(self, chunks: Any, routing: RoutingSession) -> None:
        self._chunks = chunks
        self._routing = routing
        self._scope = SuspendedScope(routing)
        self._has_ended = False

    def in_scope(self, function: Callable[[], object]) -> Callable[[], None]:
        """Return `function` as it runs in this unit of work."""

        def run() -> None:
            with self._resumed():
                function()

        return run

    def _resumed(self) -> AbstractContextManager[None]:
        return self._scope.resumed()

    def _innermost(self) -> RoutingSession:
        """Return the unit of work that the generator is in, which may have opened one of its own."""
        return current_scope().routing or self._routing

    def _must_save(self) -> bool:
        routing = self._innermost()
        return any(pointers.must_save(unit) for unit in (routing, *routing.around()))

    def _save(self) -> None:
        pointers.save_after_headers(self._innermost())

    def _end(self) -> None:
        """Save what is left, once. The generator will not run any more."""
        if not self._has_ended:
            self._has_ended = True
            pointers.end_after_headers(self._routing)


class SyncStream(Stream):
    """The chunks of a synchronous response. For one thread at a time, as generators are."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._resumed():
            try:
                chunk = next(self._chunks)
                if self._must_save():
                    self._save()
            except BaseException:  # also its end
                self._end()
                raise
        return chunk

    def close(self) -> None:
        """End after the generator, which Django closes first."""
        with self._resumed():
            self._end()


class AsyncStream(Stream):
    """The chunks of an asynchronous response. Nothing is saved in the event loop itself."""

    _is_closing = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        with self._resumed():
            try:
                chunk = await anext(self._chunks)
                if self._must_save():
                    await sync_to_async(self._save)()
            except Exception:  # also its end; when the client has gone, the response is closed
                await self._aend()
                raise
        return chunk

    def close(self) -> None:
        """Close the generator, which Django would leave to the garbage collector, and end. Responses are closed synchronously."""
        if self._has_ended or self._is_closing:
            return
        self._is_closing = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            async_to_sync(self._aclose)()
        else:
            task = loop.create_task(self._aclose())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    async def _aclose(self) -> None:
        with self._resumed():
            try:
                if hasattr(self._chunks, "aclose"):
                    await self._chunks.aclose()
            finally:
                await self._aend()

    async def _aend(self) -> None:
        if not self._has_ended:
            await asyncio.shield(sync_to_async(self._end)())
