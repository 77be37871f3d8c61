"""State never leaks: whatever was nested, raised, suspended or abandoned, nothing of it is in force afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.conf import settings
from django.test import Client, override_settings

from django_pglb import current_decisions, routing_session
from django_pglb.contrib.celery import running
from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import RoutingSession
from django_pglb.testing import wait_until
from tests.fix_site import Served, Site
from tests.guestbook.models import Entry

from .interpreter import Interpreter
from .model import Here, is_clean
from .program import LEAVES_OF_READERS, LEAVES_WITH_DATABASE, Author, Node

SEED = "PGLB_TEST_SEED"
# Small ones first: whatever fails is likely to be short. Each fault that this is for is found within some tens of programs.
SIZES = [size for size in (4, 8, 12, 20, 30) for _ in range(50)]
SIZES_OF_READERS = [size for size in (10, 30) for _ in range(60)]
SIZES_WITH_DATABASE = [size for size in (5, 10, 20) for _ in range(12)]


@pytest.fixture(scope="module", autouse=True)
def only_our_garbage() -> Iterator[None]:
    """Garbage is collected when a program says so, and what there was before is left alone."""
    running.connect()
    gc.collect()
    gc.freeze()
    gc.disable()
    interval = sys.getswitchinterval()
    # Threads take turns within a program of some hundred microseconds.
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    gc.enable()
    gc.unfreeze()


Run = Callable[[Interpreter, list[Node]], None]


def seeds_and_sizes(sizes: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Return what to run: what the environment says, else programs that nobody has seen before."""
    if SEED in os.environ:
        seed, _, size = os.environ[SEED].partition(":")
        return [(int(seed), int(size))]
    return enumerate(sizes, random.SystemRandom().randrange(10**9))


def run_programs(run: Run) -> None:
    """Run random programs of one to three units, and raise what went wrong in the first that fails, with how to run it again."""
    for seed, size in seeds_and_sizes(SIZES):
        author = Author(seed)
        program = [author.write_unit(size) for _ in range(1 + seed % 3)]
        interpreter = Interpreter()
        try:
            run(interpreter, program)
            interpreter.finish()
            assert is_clean()
            del interpreter
            assert_nothing_is_left()
        except BaseException as error:
            error.add_note(f"{SEED}={seed}:{size} runs this one alone: {program}")
            raise


def assert_nothing_is_left() -> None:
    """Wait until no unit of work exists: a thread of a pool lets go of what it has run a little later than it gives the result."""
    wait_until(lambda: not remaining_units(), what="all routing sessions to be gone", timeout=30)


def remaining_units() -> list[RoutingSession]:
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is RoutingSession]  # isinstance would wake lazy objects


def run_one(interpreter: Interpreter, unit: Node) -> None:
    """Run it in the context that is in force, as a server's thread does."""
    interpreter.run_apart((unit,), Here())
    assert is_clean()


async def arun_one(interpreter: Interpreter, unit: Node) -> None:
    await interpreter.arun_apart((unit,), Here())
    assert is_clean()


def test_nothing_leaks_from_one_unit_to_the_next_of_a_thread() -> None:
    """One after another in the same thread."""

    def run(interpreter: Interpreter, program: list[Node]) -> None:
        for unit in program:
            run_one(interpreter, unit)

    run_programs(run)


def test_nothing_leaks_between_threads() -> None:
    """At once in threads of a pool, each of which must be clean afterwards."""

    def run(interpreter: Interpreter, program: list[Node]) -> None:
        with ThreadPoolExecutor(len(program)) as pool:
            list(pool.map(partial(run_one, interpreter), program))
            list(pool.map(partial(run_one, interpreter), program))

    run_programs(run)


def test_nothing_leaks_between_tasks_of_an_event_loop() -> None:
    """At once in tasks of one event loop, and then one after another in the same task."""

    async def arun(interpreter: Interpreter, program: list[Node]) -> None:
        await asyncio.gather(*(arun_one(interpreter, unit) for unit in program))
        for unit in program:
            await arun_one(interpreter, unit)
        # What was abandoned is closed by tasks that the loop has begun for it.
        await asyncio.sleep(0)

    run_programs(lambda interpreter, program: asyncio.run(arun(interpreter, program)))


def test_next_user_of_a_thread_sees_nothing_of_the_one_before(site: Site) -> None:
    """Whatever was read and written: another user is answered by a replica, as if nobody had been there."""
    with override_settings(PGLB={"default": {**settings.PGLB["default"], "MAX_LAG_SECONDS": None}}):
        Entry.objects.create(text="old")
        site.wait_until_seen()
        for replica in site.cluster.replicas:
            replica.pause_replay()
        for seed, size in seeds_and_sizes(SIZES_WITH_DATABASE):
            program = Author(seed, LEAVES_WITH_DATABASE).write_unit(size)
            try:
                interpreter = Interpreter()
                run_one(interpreter, program)
                assert_reads_as_nobody()
                interpreter.finish()
                assert_reads_as_nobody()
            except BaseException as error:
                error.add_note(f"{SEED}={seed}:{size} runs this one alone: {program}")
                raise
        assert Entry.objects.count() > 1


def test_reads_by_a_lease_go_where_the_rules_send_them(site: Site) -> None:
    """Whatever a unit of work has done since the rules were asked; and it sees its own writes. No lease ends by itself here."""
    leases = 0
    with override_settings(PGLB={"default": {**settings.PGLB["default"], "CHECK_INTERVAL": 600}}):
        site.wait_until_online()
        for seed, size in seeds_and_sizes(SIZES_OF_READERS):
            program = Author(seed, LEAVES_OF_READERS, is_flat=True).write_unit(size)
            try:
                interpreter = Interpreter()
                run_one(interpreter, program)
                interpreter.finish()
            except BaseException as error:
                error.add_note(f"{SEED}={seed}:{size} runs this one alone: {program}")
                raise
            leases += interpreter.leases
    assert leases or SEED in os.environ


def assert_reads_as_nobody() -> None:
    """Value, host and reason, in a block and in a request."""
    with routing_session(identity=("test", "another")):
        assert Entry.objects.order_by("-pk").values_list("text", flat=True).first() == "old"
        ((alias, reason, count),) = current_decisions()
    assert (alias in ("replica1", "replica2"), reason, count) == (True, Reason.REPLICA, 1)
    response = Client().get("/newest/")
    assert response.json() == {"text": "old"}
    assert Served(response).aliases <= {"replica1", "replica2"}
    assert Served(response).reasons == {Reason.REPLICA}
