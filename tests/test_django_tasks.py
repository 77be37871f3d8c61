"""Django's tasks see what whoever enqueued them wrote. Value, host and reason are asserted each time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.test import RequestFactory, override_settings
from django.utils import timezone

from django_pglb import routing_session, use_primary
from django_pglb.contrib.tasks import db_consistency
from django_pglb.contrib.tasks.publishing import POINTER
from django_pglb.contrib.tasks.seams import LIBRARIES, wrap, wrap_libraries
from django_pglb.core.decision import Reason
from django_pglb.jobs import NOTHING, bounds_of_text
from django_pglb.middleware import LoadBalancingMiddleware

from .background import tasks
from .background.backends import answer
from .background.libraries import INSTALLED
from .background.worker import Worker
from .fix_site import Served, Site
from .guestbook.models import Entry

ON_REPLICA = ([["replica1", "replica"]], [["replica2", "replica"]])
OnBackend = Callable[[str, Any], Any]


@pytest.fixture(params=INSTALLED)
def package(request: pytest.FixtureRequest) -> str:
    """The name of each library that is there."""
    return str(request.param)


@pytest.fixture
def on(package: str) -> OnBackend:
    """Turns a task into one of the library, on its backend of a kind."""
    return partial(tasks.on, package)


@pytest.fixture
def threads(on: OnBackend) -> Callable[..., Any]:
    """Runs a task on the backend of threads, and returns its answer."""

    def run(task: Any, /, *args: Any, **kwargs: Any) -> Any:
        return answer(on("thread", task).enqueue(*args, **kwargs).id)

    return run


def wait_until_seen(site: Site, result: Any) -> None:
    """Wait until both replicas have what the task of `result` must see. The primary may have gone on meanwhile, and not have sent it."""
    pointer = bounds_of_text(result.kwargs[POINTER])["default"].pointer
    assert pointer is not None
    site.wait_until_seen(pointer.exact_lsn)


def run_when_seen(site: Site, on: OnBackend, result: Any) -> Any:
    """Return what the task of `result`, which was enqueued where nothing runs it, answers once both replicas have what it must see."""
    wait_until_seen(site, result)
    task = on("thread", result.task)
    return answer(task.get_backend().enqueue(task, result.args, result.kwargs).id)


# --- Levels, on a backend like any other ---


def test_sticky_task_reads_from_the_primary_until_a_replica_has_it(site: Site, on: OnBackend) -> None:
    """With replay paused it sees the write on the primary (behind); after replay on a replica."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        assert answer(on("thread", tasks.look_sticky).enqueue().id) == {"text": "mine", "served": [["default", "behind"]]}
        site.resume_replay()
        found = run_when_seen(site, on, on("dummy", tasks.look_sticky).enqueue())
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


def test_task_that_nothing_binds_reads_from_a_replica(site: Site, threads: Callable[..., Any]) -> None:
    """Whoever enqueued it wrote nothing, so it may miss what somebody else wrote."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="somebody else's")
    with routing_session():
        found = threads(tasks.look_sticky)
    assert found["text"] is None
    assert found["served"] in ON_REPLICA


def test_task_without_a_level_reads_from_the_primary(site: Site, threads: Callable[..., Any]) -> None:
    """The default is "always"."""
    with routing_session():
        Entry.objects.create(text="mine")
        site.wait_until_seen()
        assert threads(tasks.look) == {"text": "mine", "served": [["default", "forced_primary"]]}


def test_setting_is_the_level_of_tasks_that_name_none(site: Site, on: OnBackend) -> None:
    """`PGLB_TASK_CONSISTENCY`."""
    with override_settings(PGLB_TASK_CONSISTENCY="sticky"):
        site.wait_until_online()
        site.pause_replay()
        with routing_session():
            Entry.objects.create(text="mine")
            assert answer(on("thread", tasks.look).enqueue().id) == {"text": "mine", "served": [["default", "behind"]]}
            site.resume_replay()
            found = run_when_seen(site, on, on("dummy", tasks.look).enqueue())
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


def test_task_of_a_task_sees_what_the_first_one_had_to_see(site: Site, threads: Callable[..., Any], package: str) -> None:
    """Also where the first one, which reads from the primary, touches no database."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        result_id = threads(tasks.enqueue_look, package)
    assert answer(result_id) == {"text": "mine", "served": [["default", "behind"]]}


# --- The reserved argument ---


def test_function_does_not_get_the_reserved_argument(site: Site, threads: Callable[..., Any]) -> None:
    """It gets what it was enqueued with; the pointer is among the arguments of the result."""
    with routing_session():
        Entry.objects.create(text="mine")
        found = threads(tasks.echo, 1, task=2)
    assert (found["args"], found["kwargs"]) == ([1], {"task": 2})
    assert set(found["of context"]) == {"task", POINTER}


def test_stored_task_that_is_enqueued_again_sees_what_it_had_to_see(site: Site, on: OnBackend) -> None:
    """By somebody who wrote nothing, from the arguments that its result shows."""
    site.pause_replay()
    task = on("thread", tasks.look_sticky)
    with routing_session():
        Entry.objects.create(text="mine")
        first = task.enqueue()
    with routing_session():
        again = task.enqueue(*first.args, **first.kwargs)
        assert answer(again.id) == {"text": "mine", "served": [["default", "behind"]]}


def test_message_that_says_nothing_is_read_from_the_primary(site: Site, on: OnBackend) -> None:
    """It was published before the app was installed, or past `enqueue()`: nobody knows what it must see."""
    site.pause_replay()
    Entry.objects.create(text="mine")
    task = on("thread", tasks.look_sticky)
    assert answer(task.get_backend().enqueue(task, [], {}).id) == {"text": "mine", "served": [["default", "forced_primary"]]}


@pytest.mark.parametrize(("task", "expected"), [(tasks.look, {}), (tasks.look_sticky, {POINTER: NOTHING})], ids=["always", "sticky"])
def test_nothing_is_added_where_nothing_binds(site: Site, on: OnBackend, task: Any, expected: dict[str, str]) -> None:
    """But that a task which may read from a replica is bound by nothing is said."""
    with routing_session():
        assert on("dummy", task).enqueue().kwargs == expected


def test_nothing_is_added_where_no_replica_can_be_read(site: Site, on: OnBackend) -> None:
    """Neither with the package switched off."""
    with override_settings(PGLB_ENABLED=False), routing_session():
        Entry.objects.create(text="mine")
        assert on("dummy", tasks.look_sticky).enqueue().kwargs == {}


# --- Transactions and event loops ---


def test_task_that_is_enqueued_in_a_transaction_reads_from_the_primary(site: Site, on: OnBackend) -> None:
    """What was written has no position yet; that replicas have it when the task runs does not matter."""
    with routing_session(), transaction.atomic():
        Entry.objects.create(text="mine")
        result = on("dummy", tasks.look_sticky).enqueue()
    site.wait_until_seen()
    assert result.task.call(**result.kwargs) == {"text": "mine", "served": [["default", "behind"]]}


def test_task_that_is_enqueued_after_the_commit_reads_from_a_replica(site: Site, on: OnBackend) -> None:
    """By `transaction.on_commit()`, as Django advises."""
    results: list[Any] = []
    with routing_session(), transaction.atomic():
        Entry.objects.create(text="mine")
        transaction.on_commit(lambda: results.append(on("dummy", tasks.look_sticky).enqueue()))
    found = run_when_seen(site, on, results[0])
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


def test_aenqueue_takes_the_pointer_where_it_may_be_asked_for(site: Site, on: OnBackend) -> None:
    """So the task reads by it, while `enqueue()` in an event loop sends the task to the primary."""
    task = on("dummy", tasks.look_sticky)

    async def enqueue_both() -> list[Any]:
        async with routing_session():
            await Entry.objects.acreate(text="mine")
            return [await task.aenqueue(), task.enqueue()]

    awaited, plain = asyncio.run(enqueue_both())
    found = run_when_seen(site, on, awaited)
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA
    assert task.call(**plain.kwargs) == {"text": "mine", "served": [["default", "behind"]]}


def test_aenqueued_task_sees_the_write(site: Site, on: OnBackend) -> None:
    """With replay paused, it is read from the primary."""
    site.pause_replay()
    task = on("thread", tasks.look_sticky)

    async def enqueue() -> Any:
        async with routing_session():
            await Entry.objects.acreate(text="mine")
            return await task.aenqueue()

    assert answer(asyncio.run(enqueue()).id) == {"text": "mine", "served": [["default", "behind"]]}


def test_async_task_reads_like_any_other(site: Site, on: OnBackend) -> None:
    """In an event loop (`acall`), from the primary while the replicas are behind, and from a replica when they are not."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        assert answer(on("thread", tasks.look_async).enqueue().id) == {"text": "mine", "served": [["default", "behind"]]}
        site.resume_replay()
        found = run_when_seen(site, on, on("dummy", tasks.look_async).enqueue())
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


# --- Run at once ---


def in_request(view: Callable[[HttpRequest], JsonResponse]) -> tuple[Any, Served]:
    response = LoadBalancingMiddleware(view)(RequestFactory().get("/"))
    return json.loads(response.content), Served(response)


@pytest.mark.parametrize("task", [tasks.look_sticky, tasks.look_async], ids=["sync", "async"])
def test_task_that_runs_at_once_belongs_to_the_request(site: Site, on: OnBackend, task: Any) -> None:
    """The immediate backend: what the request wrote, its task has written (`wrote`), and the request's decisions count the task's."""
    site.pause_replay()

    def view(request: HttpRequest) -> JsonResponse:
        Entry.objects.create(text="mine")
        return JsonResponse(on("immediate", task).enqueue().return_value)

    found, served = in_request(view)
    assert found == {"text": "mine", "served": [["default", "wrote"]]}
    assert served.reasons == {Reason.WRITE, Reason.WROTE}


def test_write_of_a_task_that_runs_at_once_is_the_requests(site: Site, on: OnBackend) -> None:
    """The request reads it afterwards on the primary, and whoever comes next with its cookie does too."""
    site.pause_replay()

    def view(request: HttpRequest) -> JsonResponse:
        on("immediate", tasks.write_and_look).enqueue("mine")
        return JsonResponse(tasks.newest())

    response = LoadBalancingMiddleware(view)(RequestFactory().get("/"))
    assert json.loads(response.content)["text"] == "mine"
    assert Served(response).reasons == {Reason.WRITE, Reason.WROTE}
    next_request = RequestFactory().get("/")
    next_request.COOKIES["pglb"] = response.cookies["pglb"].value
    response = LoadBalancingMiddleware(lambda request: JsonResponse(tasks.newest()))(next_request)
    assert json.loads(response.content)["text"] == "mine"
    assert (Served(response).aliases, Served(response).reasons) == ({"default"}, {Reason.BEHIND})


def test_task_that_is_called_directly_reads_at_its_level(site: Site, on: OnBackend) -> None:
    """In a unit of work, whose writes it sees; where there is none, nobody knows of any, so it reads from the primary."""
    task = on("thread", tasks.look_sticky)
    with routing_session(), use_primary():
        assert task.call()["served"] in ON_REPLICA
    assert task.call()["served"] == [["default", "forced_primary"]]


# --- Delayed ---


def delayed_until(task: Any) -> Any:
    return task.enqueue().task.run_after


def test_delayed_task_waits_a_second_for_a_replica(site: Site, on: OnBackend) -> None:
    """Where none has what it must see yet; where one has, or nothing binds it, it is not deferred."""
    task = on("dummy", tasks.look_delayed)
    with routing_session():
        assert delayed_until(task) is None
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        before = timezone.now()
        result = task.enqueue()
        assert before + timedelta(seconds=1) <= result.task.run_after <= timezone.now() + timedelta(seconds=1)
    site.resume_replay()
    wait_until_seen(site, result)
    with routing_session():
        assert task.enqueue(**result.kwargs).task.run_after is None


def test_later_time_of_a_delayed_task_holds(site: Site, on: OnBackend) -> None:
    """A task that is to run in an hour anyway is left alone; one that is to run at once is not."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        an_hour_later = timezone.now() + timedelta(hours=1)
        assert delayed_until(on("dummy", tasks.look_delayed).using(run_after=an_hour_later)) == an_hour_later
        before = timezone.now()
        assert delayed_until(on("dummy", tasks.look_delayed).using(run_after=before)) >= before + timedelta(seconds=1)


def test_delayed_task_is_sticky_where_the_backend_cannot_defer(site: Site, on: OnBackend) -> None:
    """It runs at once, on the primary while no replica has it."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        assert answer(on("thread", tasks.look_delayed).enqueue().id) == {"text": "mine", "served": [["default", "behind"]]}
        site.resume_replay()
        found = run_when_seen(site, on, on("dummy", tasks.look_delayed).enqueue())
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


def test_task_that_waiting_cannot_help_is_not_deferred(site: Site, on: OnBackend) -> None:
    """One that is enqueued in a transaction has no position to wait for."""
    with routing_session(), transaction.atomic():
        Entry.objects.create(text="mine")
        assert delayed_until(on("dummy", tasks.look_delayed)) is None


# --- The decorator ---


def test_level_that_is_none_is_refused_at_once() -> None:
    """The message names the function, the nearest level and all of them."""
    with pytest.raises(
        ImproperlyConfigured,
        match=r'db_consistency of newest: "stick" is not a level; did you mean "sticky"\? Choose one of "always", "sticky", ',
    ):
        db_consistency("stick")(tasks.newest)


def test_app_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Django 6 nor the backport is there."""
    for package in LIBRARIES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImproperlyConfigured, match="needs Django 6, or the package django-tasks"):
        wrap_libraries()


def test_wrapping_again_changes_nothing(on: OnBackend) -> None:
    """Apps may be loaded again."""
    task_class = type(on("thread", tasks.look))
    methods = [task_class.enqueue, task_class.aenqueue, task_class.call, task_class.acall]
    wrap(task_class)
    assert [task_class.enqueue, task_class.aenqueue, task_class.call, task_class.acall] == methods


# --- A worker process ---


def returned(result: Any) -> Any:
    result.refresh()
    assert result.errors == []
    return result.return_value


@pytest.mark.parametrize("task", [tasks.look_sticky, tasks.look_async], ids=["sync", "async"])
def test_worker_reads_from_the_primary_what_no_replica_has(site: Site, task: Any) -> None:
    """The database backend: the task has the pointer of whoever enqueued it, in another process."""
    with Worker(site.cluster) as worker:
        site.pause_replay()
        with routing_session():
            Entry.objects.create(text="mine")
            result = task.enqueue()
        worker.run_task()
    assert returned(result) == {"text": "mine", "served": [["default", "behind"]]}


def test_worker_reads_from_a_replica_what_it_has(site: Site) -> None:
    """Replicas that have caught up answer."""
    with routing_session():
        Entry.objects.create(text="mine")
        result = tasks.look_sticky.enqueue()
    with Worker(site.cluster) as worker:
        worker.run_task()
    found = returned(result)
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA


def test_worker_reads_a_deferred_task_from_the_replica_that_has_caught_up(site: Site) -> None:
    """Nothing of it has run before, and its result is the one that was handed out."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        result = tasks.look_delayed.enqueue()
    site.resume_replay()
    with Worker(site.cluster) as worker:
        worker.run_task()
    found = returned(result)
    assert found["text"] == "mine"
    assert found["served"] in ON_REPLICA
    assert result.started_at >= result.task.run_after
    assert result.attempts == 1


def test_worker_reads_a_deferred_task_from_the_primary_in_the_end(site: Site) -> None:
    """It waits once, and no longer."""
    with Worker(site.cluster) as worker:
        site.pause_replay()
        with routing_session():
            Entry.objects.create(text="mine")
            result = tasks.look_delayed.enqueue()
        worker.run_task()
    assert returned(result) == {"text": "mine", "served": [["default", "behind"]]}
    assert result.started_at >= result.task.run_after
