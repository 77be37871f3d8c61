"""Runs a program, and compares at every step what is in force with what the model says."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from contextvars import copy_context
from typing import Any

from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async
from celery import Celery
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse

from django_pglb import ignore_writes, replica_reads, routing_session, use_primary, use_replicas
from django_pglb.context import routing_of
from django_pglb.core.job import Consistency
from django_pglb.core.routing_session import RoutingSession
from django_pglb.jobs import job_session
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.stores.carried import sign
from tests.guestbook.models import Entry

from .lease import look_at_lease
from .model import Frame, Here
from .program import (
    CHANGES,
    Abandon,
    Atomic,
    Body,
    Change,
    Close,
    Collect,
    Crossing,
    Fail,
    Guarded,
    Hang,
    Look,
    Node,
    Pause,
    Read,
    Request,
    Resume,
    Suspend,
    Tasks,
    Threads,
    Within,
    Write,
)

PATIENCE_SECONDS = 120


class Boom(Exception):
    """What a program raises."""


class Quit(BaseException):
    """What a program raises to end whatever runs it."""


RAISED = (Boom, Quit)


def manager(change: Change) -> Any:
    """Return a new context manager that makes the change."""
    match change:
        case "use_primary":
            return use_primary()
        case "use_replicas":
            return use_replicas()
        case "ignore_writes":
            return ignore_writes()
        case "replica_reads":
            return replica_reads()
        case "routing_session":
            return routing_session(pointer=sign({}))
        case "routing_session of somebody":
            return routing_session(identity=("test", "somebody"))
        case _:
            return job_session(sign({}), Consistency(change.removesuffix(" job")))


def _call(body: Callable[[], None]) -> None:
    body()


async def _acall(body: Callable[[], Awaitable[None]]) -> None:
    await body()


# Decorated once, and called by whole programs, by all their threads and tasks, and within itself.
DECORATED = {change: manager(change)(_call) for change in CHANGES}
DECORATED_ASYNC = {change: manager(change)(_acall) for change in CHANGES}

celery_app = Celery("leaks", set_as_current=False)
EAGER = {f"{level} job": celery_app.task(_call, name=f"leaks.{level}", db_consistency=level) for level in Consistency}


class Suspended:
    """A generator that somebody has begun, and the blocks that it is within."""

    def __init__(self, generator: Any, changes: tuple[Change, ...], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.generator = generator
        self.changes = iter(changes)
        self.frames: list[Frame] = []
        self.loop = loop
        self.itself: Suspended | None = None


def suspended(changes: tuple[Change, ...]) -> Generator[None, None, None]:
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(manager(change))
            yield


async def suspended_async(changes: tuple[Change, ...]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for change in changes:
            await stack.enter_async_context(manager(change))
            yield


class Interpreter:
    """Runs programs, several at once if need be: they share generators, so that one closes what another one began."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        """What went wrong in threads and tasks that nobody may be waiting for."""
        self.leases = 0
        """How many reads had a lease, which was compared with the rules."""
        self._written: dict[RoutingSession, int] = {}
        """The latest key that each unit of work has committed itself."""
        self._suspended: list[Suspended] = []
        self._garbage: list[list[Frame]] = []
        # Nobody drops anything while garbage is collected, so that it is known what was in it.
        self._collecting = threading.Lock()

    def finish(self) -> None:
        """Close what is still suspended, and raise what went wrong."""
        here = Here()
        self._suspended = [entry for entry in self._suspended if entry.loop is None]
        while self._suspended:
            self._close(0, here)
        self._collect(here)
        if self.errors:
            raise self.errors[0]

    # --- Sync ---

    def run_in_thread(self, body: Body, here: Here) -> None:
        self.run_apart(body, here)
        connections.close_all()

    def run(self, body: Body, here: Here) -> None:
        for node in body:
            self._step(node, here)
            here.look(f"after {node}")

    def run_apart(self, body: Body, here: Here) -> None:
        """Run it where what is raised would be lost."""
        with self._kept():
            self.run(body, here)

    def _step(self, node: Node, here: Here) -> None:
        match node:
            case Within():
                self._within(node, here)
            case Request():
                self._request(node, here)
            case Guarded(body):
                with suppress(*RAISED):
                    self.run(body, here)
            case Atomic(body):
                with transaction.atomic():
                    self.run(body, here)
            case Crossing(body) if here.may_cross:
                async_to_sync(self._arun_in_copy)(body, here.copy())
            case Crossing(body):
                self.run(body, here)
            case Threads():
                for thread in self._started(node, here):
                    _join(thread)
            case Tasks():
                for body in node.bodies:
                    copy_context().run(self.run_apart, body, here.copy())
            case _:
                self._leaf(node, here)

    def _within(self, node: Within, here: Here) -> None:
        frames: list[Frame] = []

        is_task = node.form == "eager task" and node.change in EAGER

        def body() -> None:
            frames.append(here.enter(node.change, is_task=is_task))
            self.run(node.body, here)

        try:
            if node.form == "decorator":
                DECORATED[node.change](body)
            elif is_task:
                EAGER[node.change].apply(args=[body], throw=True)
            else:
                with manager(node.change):
                    body()
        finally:
            here.leave(*frames)

    def _request(self, node: Request, here: Here) -> None:
        frames: list[Frame] = []

        def view(request: HttpRequest) -> HttpResponse:
            frames.append(here.enter_request(routing_of(request)))  # type: ignore[arg-type]
            try:
                self.run(node.body, here)
            except Boom:
                if not node.answers:
                    raise
            return HttpResponse()

        try:
            LoadBalancingMiddleware(view)(_get())
        finally:
            here.leave(*frames)

    # --- Async ---

    async def arun(self, body: Body, here: Here) -> None:
        for node in body:
            await self._astep(node, here)
            here.look(f"after {node}")

    async def arun_apart(self, body: Body, here: Here, hangs: asyncio.Event | None = None) -> None:
        with self._kept():
            try:
                await self.arun(body, here)
            finally:
                if hangs is not None:
                    hangs.set()

    async def _arun_in_copy(self, body: Body, here: Here) -> None:
        """Run it in a task of its own.

        asgiref lets the sync caller go on before it has copied the context of the async code, so whether changes come back is chance.
        """
        await asyncio.create_task(self.arun(body, here))

    async def _astep(self, node: Node, here: Here) -> None:
        match node:
            case Within():
                await self._awithin(node, here)
            case Request():
                await self._arequest(node, here)
            case Guarded(body):
                with suppress(*RAISED):
                    await self.arun(body, here)
            case Crossing(body):
                await sync_to_async(self.run)(body, here)
            case Atomic():
                await sync_to_async(self._step)(node, here)
            case Threads():
                for thread in self._started(node, here):
                    await asyncio.to_thread(_join, thread)
            case Tasks(cancels=True):
                await asyncio.gather(*(self._cancelled(body, here) for body in node.bodies))
            case Tasks():
                await asyncio.gather(*(self.arun_apart(body, here.copy()) for body in node.bodies))
            case _:
                await self._aleaf(node, here)

    async def _aleaf(self, node: Node, here: Here) -> None:
        loop = asyncio.get_running_loop()
        match node:
            case Pause():
                await asyncio.sleep(0)
            case Read() | Write():
                await sync_to_async(self._leaf)(node, here)
            case Hang() if here.hangs is not None:
                here.hangs.set()
                await asyncio.sleep(PATIENCE_SECONDS)
            case Suspend(changes, True):
                entry = Suspended(suspended_async(changes), changes, loop)
                await self._aresume(entry, here)
            case Resume(index) if entry := self._taken(index, loop):
                await self._aresume(entry, here)
            case Close(index) if entry := self._taken(index, loop):
                await entry.generator.aclose()
                here.leave(*entry.frames)
            case Abandon(index) if self._taken(index, loop):
                pass  # the loop closes it, in a context of its own
            case _:
                self._leaf(node, here)

    async def _aresume(self, entry: Suspended, here: Here) -> None:
        try:
            await anext(entry.generator)
        except StopAsyncIteration:
            here.leave(*entry.frames)
        else:
            entry.frames.append(here.enter(next(entry.changes)))
            self._suspended.append(entry)

    async def _awithin(self, node: Within, here: Here) -> None:
        frames: list[Frame] = []

        async def body() -> None:
            frames.append(here.enter(node.change))
            await self.arun(node.body, here)

        try:
            if node.form == "decorator":
                await DECORATED_ASYNC[node.change](body)
            else:
                async with manager(node.change):
                    await body()
        finally:
            here.leave(*frames)

    async def _arequest(self, node: Request, here: Here) -> None:
        frames: list[Frame] = []

        async def view(request: HttpRequest) -> HttpResponse:
            frames.append(here.enter_request(routing_of(request)))  # type: ignore[arg-type]
            try:
                await self.arun(node.body, here)
            except Boom:
                if not node.answers:
                    raise
            return HttpResponse()

        markcoroutinefunction(view)
        try:
            await LoadBalancingMiddleware(view)(_get())  # type: ignore[misc]
        finally:
            here.leave(*frames)

    async def _cancelled(self, body: Body, here: Here) -> None:
        hangs = asyncio.Event()
        task = asyncio.create_task(self.arun_apart(body, here.copy(hangs=hangs), hangs))
        await hangs.wait()
        task.cancel()
        await asyncio.wait([task])

    # --- Both ---

    def _leaf(self, node: Node, here: Here) -> None:
        match node:
            case Pause():
                time.sleep(0)
            case Read():
                self._read(here)
            case Write():
                self._write(here)
            case Look() | Hang():
                pass
            case Fail(is_exit):
                raise Quit if is_exit else Boom
            case Suspend(changes):
                self._resume(Suspended(suspended(changes), changes), here)
            case Resume(index) if entry := self._taken(index):
                self._resume(entry, here)
            case Close(index):
                self._close(index, here)
            case Abandon(index, True):
                self._abandon_in_cycle(index)
            case Abandon(index) if entry := self._taken(index):
                frames = entry.frames
                del entry
                here.leave(*frames)
            case Collect():
                self._collect(here)

    def _read(self, here: Here) -> None:
        """Read, and look whether it is seen what this unit of work wrote, in whichever thread."""
        self.leases += look_at_lease()
        routing = here.frame.routing
        written = 0 if routing is None or here.frame.forced == "replicas" else self._written.get(routing, 0)
        newest = Entry.objects.order_by("-pk").first()
        assert written <= (newest.pk if newest else 0), "a unit of work did not see its own write"

    def _write(self, here: Here) -> None:
        routing, entry = here.frame.routing, Entry.objects.create(text="theirs")
        if routing is not None and not here.frame.ignore_writes:
            transaction.on_commit(lambda: self._note(routing, entry.pk))

    def _note(self, routing: RoutingSession, key: int) -> None:
        self._written[routing] = max(key, self._written.get(routing, 0))

    def _resume(self, entry: Suspended, here: Here) -> None:
        try:
            next(entry.generator)
        except StopIteration:
            here.leave(*entry.frames)
        else:
            entry.frames.append(here.enter(next(entry.changes)))
            self._suspended.append(entry)

    def _close(self, index: int, here: Here) -> None:
        if entry := self._taken(index):
            entry.generator.close()
            here.leave(*entry.frames)

    def _abandon_in_cycle(self, index: int) -> None:
        with self._collecting:
            if entry := self._taken(index):
                entry.itself = entry
                self._garbage.append(entry.frames)

    def _collect(self, here: Here) -> None:
        with self._collecting:
            found, self._garbage = self._garbage, []
            gc.collect()
            for frames in found:
                here.leave(*frames)

    def _taken(self, index: int, loop: asyncio.AbstractEventLoop | None = None) -> Suspended | None:
        """Return one that is suspended, which nobody else gets any more: of the given loop, or sync."""
        candidates = [entry for entry in tuple(self._suspended) if entry.loop is loop]
        if not candidates:
            return None
        entry = candidates[index % len(candidates)]
        try:
            self._suspended.remove(entry)
        except ValueError:
            return None  # another thread was faster
        return entry

    def _started(self, node: Threads, here: Here) -> list[threading.Thread]:
        threads = []
        for body in node.bodies:
            run, theirs = (copy_context().run, here.copy(may_cross=False)) if node.inherits else (lambda f, *args: f(*args), Here())
            threads.append(threading.Thread(target=run, args=(self.run_in_thread, body, theirs)))
        for thread in threads:
            thread.start()
        return threads

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (*RAISED, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised at the end
            self.errors.append(error)


def _join(thread: threading.Thread) -> None:
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def _get() -> HttpRequest:
    request = HttpRequest()
    request.method = "GET"
    return request
