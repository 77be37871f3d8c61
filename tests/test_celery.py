"""Tasks see what their publisher wrote: real workers, a real broker. What was found, which host served it, and why."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.exceptions import Ignore
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import TimestampSigner
from django.db import connections, transaction
from django.test import Client, override_settings

from django_pglb import jobs, routing_session
from django_pglb.context import current_scope
from django_pglb.contrib.celery import checks, publishing, running
from django_pglb.core.job import Consistency
from django_pglb.core.policy import Scope
from django_pglb.testing import wait_until

from .fix_jobs import Worker
from .fix_site import Site
from .guestbook.models import Entry
from .jobs.app import PUT_BACK
from .served.program import ROOT

pytestmark = pytest.mark.urls("tests.jobs.urls")

POSITION_QUERY = "pg_current_wal_insert_lsn"

Answer = dict[str, Any]


@pytest.fixture(params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, workers: dict[str, Worker], site: Site) -> Iterator[Worker]:
    """A worker that sees both replicas online, where they are now."""
    worker = workers[request.param]
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    yield worker
    site.cluster.heal()


@pytest.fixture
def text() -> str:
    """A text that nobody has written yet."""
    return uuid.uuid4().hex


def order(worker: Worker, app: Celery, path: str, **fields: Any) -> list[Answer]:
    """Post to a view that writes and starts tasks on `worker`; return what the tasks answer."""
    response = Client().post(path, {"queue": worker.pool, **fields})
    assert response.status_code == 200, response.content
    return [worker.result_of(app.AsyncResult(task_id)) for task_id in response.json()["ids"]]


def started(worker: Worker, app: Celery, task: str, *args: Any, **options: Any) -> Answer:
    """Return what a task answers that this script starts on `worker`."""
    return worker.result_of(app.tasks[f"tests.jobs.tasks.{task}"].apply_async(args, queue=worker.pool, **options))


def served(answer: Answer) -> set[tuple[str, str]]:
    """Return which hosts served a task, and why; both replicas count as one."""
    return {("replica" if alias.startswith("replica") else alias, reason) for alias, reason, _ in answer["decisions"]}


def position_queries(site: Site, since: int) -> int:
    return sum(POSITION_QUERY in statement for statement in site.statements("default", since))


# --- Levels ---


def test_sticky_task_finds_its_publishers_write(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """While no replica has the write, the primary answers; once one has it, a replica does, as that server itself can tell."""
    site.pause_replay()
    (answer,) = order(worker, celery_app, "/order/", task="sticky", text=text)
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})
    site.resume_replay()
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    marks = {alias: site.log_end(alias) for alias in ("default", "replica1", "replica2")}
    answer = started(worker, celery_app, "sticky", text)
    assert (answer["found"], served(answer)) == (True, {("replica", "replica")})
    (alias,) = {alias for alias, *_ in answer["decisions"]}
    assert any(text in statement for statement in site.statements(alias, marks[alias]))
    assert not any(text in statement for statement in site.statements("default", marks["default"]))


@pytest.mark.parametrize("task", ["always", "unmarked"])
def test_task_reads_from_the_primary_unless_it_says_otherwise(worker: Worker, celery_app: Celery, site: Site, text: str, task: str) -> None:
    """Also where the replicas have everything."""
    Entry.objects.create(text=text)
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    answer = started(worker, celery_app, task, text)
    assert (answer["found"], served(answer)) == (True, {("default", "forced_primary")})


def test_level_of_tasks_that_name_none_is_a_setting(site: Site, celery_app: Celery) -> None:
    """PGLB_TASK_CONSISTENCY is the default, and what a task says itself wins."""
    tasks = celery_app.tasks
    with override_settings(PGLB_TASK_CONSISTENCY="sticky"):
        assert jobs.consistency_of(tasks["tests.jobs.tasks.unmarked"]) is Consistency.STICKY
        assert jobs.consistency_of(tasks["tests.jobs.tasks.always"]) is Consistency.ALWAYS
    assert jobs.consistency_of(tasks["tests.jobs.tasks.unmarked"]) is Consistency.ALWAYS


def test_delayed_task_waits_for_a_replica(worker: Worker, celery_app: Celery, site: Site, text: str, put_back: redis.Redis) -> None:
    """It comes again under the same id, counted as no retry, and a replica answers."""
    site.pause_replay()
    response = Client().post("/order/", {"queue": worker.pool, "task": "delayed", "text": text})
    (task_id,) = response.json()["ids"]
    wait_until(lambda: task_id in put_back.lrange(PUT_BACK, 0, -1), timeout=60, what="the task to be put back")
    site.resume_replay()
    answer = worker.result_of(celery_app.AsyncResult(task_id))
    assert (answer["found"], served(answer)) == (True, {("replica", "replica")})
    assert (answer["came_again"], answer["id"], answer["retries"]) == (True, task_id, 0)


def test_delayed_task_is_put_back_once(worker: Worker, celery_app: Celery, site: Site, text: str, put_back: redis.Redis) -> None:
    """Where the replicas are not there a second later either, the primary answers. In a chain, the next link runs once, too."""
    site.pause_replay()
    Entry.objects.create(text=text)
    tasks = celery_app.tasks
    first = tasks["tests.jobs.tasks.delayed"].s(text).set(queue=worker.pool)
    second = tasks["tests.jobs.tasks.sticky_next"].s(text).set(queue=worker.pool)
    answer = worker.result_of(chain(first, second).apply_async())
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})
    before = answer["before"]
    assert (before["found"], before["came_again"], served(before)) == (True, True, {("default", "behind")})
    assert put_back.lrange(PUT_BACK, 0, -1).count(before["id"]) == 1


def test_delayed_task_runs_at_once_where_a_replica_has_what_it_must_see(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """Nobody waits for nothing."""
    Entry.objects.create(text=text)
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    answer = started(worker, celery_app, "delayed", text)
    assert (answer["found"], answer["came_again"], served(answer)) == (True, False, {("replica", "replica")})


# --- What the message carries ---


def test_task_finds_what_an_earlier_request_wrote(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """A request that writes nothing itself hands on what its user must see."""
    site.pause_replay()
    browser = Client()
    browser.post("/write/", {"text": text})
    response = browser.get("/start_only/", {"queue": worker.pool, "task": "sticky", "text": text})
    answer = worker.result_of(celery_app.AsyncResult(response.json()["ids"][0]))
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})


def test_task_of_a_stranger_reads_a_replica_that_lags(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """It is the pointer that keeps others on the primary: who has none reads from a replica what that has."""
    site.pause_replay()
    Client().post("/write/", {"text": text})
    response = Client().get("/start_only/", {"queue": worker.pool, "task": "sticky", "text": text})
    answer = worker.result_of(celery_app.AsyncResult(response.json()["ids"][0]))
    assert (answer["pointer"], answer["found"], served(answer)) == ("", False, {("replica", "replica")})


def test_position_is_asked_once_per_commit(workers: dict[str, Worker], celery_app: Celery, site: Site, text: str) -> None:
    """Three tasks after one commit cost one round trip to the primary; the response's own save costs the second."""
    mark = site.log_end("default")
    answers = order(workers["threads"], celery_app, "/order/", task=["sticky", "sticky", "sticky"], text=text)
    assert [answer["found"] for answer in answers] == [True, True, True]
    assert len({answer["pointer"].partition(":")[0] for answer in answers}) == 1
    assert position_queries(site, mark) == 2


def test_position_is_asked_anew_after_each_commit(celery_app: Celery, site: Site) -> None:
    """By statements of their own, in transactions, and by COPY, a script commits four times, and asks four times."""
    Entry.objects.create(text="x")
    mark = site.log_end("default")
    texts = [jobs.text_for_job()]
    Entry.objects.create(text="x")
    texts.append(jobs.text_for_job())
    with transaction.atomic():
        Entry.objects.create(text="x")
    texts += [jobs.text_for_job(), jobs.text_for_job()]
    with connections["default"].cursor() as cursor, cursor.copy("COPY guestbook_entry (text, created) FROM STDIN") as copy:
        copy.write_row(("x", "2020-01-01"))
    texts.append(jobs.text_for_job())
    assert len({text.partition(":")[0] for text in texts if text}) == 4
    assert position_queries(site, mark) == 4


def test_task_of_an_on_commit_hook_waits_for_no_more_than_the_commit(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """It carries a position from after the commit: one that a replica can reach."""
    site.pause_replay()
    (answer,) = order(worker, celery_app, "/order_on_commit/", task="sticky", text=text)
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})
    site.resume_replay()
    (answer,) = order(worker, celery_app, "/order_on_commit/", task="delayed", text=text)
    assert (answer["found"], served(answer)) == (True, {("replica", "replica")})


@pytest.mark.parametrize("path", ["/order_in_transaction/", "/order_async/"])
def test_task_without_a_position_reads_from_the_primary(
    workers: dict[str, Worker], celery_app: Celery, site: Site, text: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Published before the commit, or where nothing may be asked of a database: whatever the replicas have, and without being put back."""
    worker = workers["threads"]
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    fields = {"queue": worker.pool, "task": "delayed", "text": text}
    response = Client().post(path, fields)
    answer = worker.result_of(celery_app.AsyncResult(response.json()["ids"][0]))
    assert (served(answer), answer["came_again"]) == ({("default", "behind")}, False)
    assert "No pointer could be taken" not in caplog.text


def test_task_with_a_forged_pointer_reads_from_the_primary(workers: dict[str, Worker], celery_app: Celery, site: Site, text: str) -> None:
    """So does one that was signed with another key; the worker says so once."""
    worker = workers["threads"]
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    forged = TimestampSigner(key="another", salt="django_pglb.pointer").sign("default=" + "0" * 50)
    for _ in range(2):
        answer = sent_with(worker, celery_app, forged, text)
        assert served(answer) == {("default", "behind")}
    assert worker.read_log().count("not signed by this site") == 1
    # A good one ends the trouble.
    Entry.objects.create(text=text)
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    assert served(started(worker, celery_app, "sticky", text)) == {("replica", "replica")}
    assert worker.read_log().count("can be read again") == 1


def test_task_of_a_process_without_the_app_reads_from_the_primary(
    workers: dict[str, Worker], celery_app: Celery, site: Site, text: str
) -> None:
    """Nobody knows what it must see: it may have been started by a write."""
    worker = workers["threads"]
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    site.pause_replay()
    Entry.objects.create(text=text)
    answer = sent_with(worker, celery_app, None, text)
    assert (answer["found"], served(answer)) == (True, {("default", "forced_primary")})


def test_eager_task_of_a_script_finds_what_that_wrote(celery_app: Celery, site: Site, text: str) -> None:
    """Without a unit of work around it nobody knows what the script wrote."""
    site.pause_replay()
    Entry.objects.create(text=text)
    answer = celery_app.tasks["tests.jobs.tasks.sticky"].apply((text,)).get()
    assert (answer["found"], served(answer)) == (True, {("default", "forced_primary")})


def sent_with(worker: Worker, app: Celery, pointer: str | None, text: str) -> Answer:
    """Return what a task answers whose message has this pointer."""
    publishing.before_task_publish.disconnect(dispatch_uid="django_pglb.attach_pointer")
    try:
        result = app.send_task(
            "tests.jobs.tasks.sticky", (text,), queue=worker.pool, headers={publishing.POINTER: pointer} if pointer else {}
        )
    finally:
        publishing.connect()
    answer: Answer = worker.result_of(result)
    return answer


def test_failure_to_take_a_position_sends_the_task_to_the_primary(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery would log the error and publish a task that nothing binds."""
    monkeypatch.setattr(publishing, "text_for_job", broken)
    headers: dict[str, Any] = {}
    publishing.attach_pointer(headers)
    assert "No pointer could be taken" in caplog.text
    with jobs.job_session(headers[publishing.POINTER], Consistency.STICKY):
        Entry.objects.exists()
        assert [(decision.alias, decision.reason) for decision in jobs.current_scope().routing.decisions()] == [("default", "behind")]


def broken(**_: object) -> str:
    raise RuntimeError("as if")


# --- Workflows ---


def test_retry_finds_what_the_first_try_wrote(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """The worker's own write binds the message that it sends."""
    site.pause_replay()
    answer = started(worker, celery_app, "write_and_retry", text)
    assert (answer["found"], answer["retries"], served(answer)) == (True, 1, {("default", "behind")})


def test_started_task_finds_what_the_starting_task_wrote(
    worker: Worker, workers: dict[str, Worker], celery_app: Celery, site: Site, text: str
) -> None:
    """A task's own writes bind the tasks that it starts, whichever worker takes these."""
    for other in workers.values():
        other.wait_until_seen(site.cluster.primary.write_lsn)
    site.pause_replay()
    task_id = started(worker, celery_app, "write_and_start", text)
    answer = worker.result_of(celery_app.AsyncResult(task_id))
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})


def test_next_link_of_a_chain_finds_what_the_one_before_wrote(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """Celery publishes it when the first has ended, which is still within its unit of work."""
    site.pause_replay()
    tasks = celery_app.tasks
    links = [tasks["tests.jobs.tasks.write"].s(text), tasks["tests.jobs.tasks.sticky_next"].s(text)]
    answer = worker.result_of(chain(*(link.set(queue=worker.pool) for link in links)).apply_async())
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})


def test_tasks_of_a_group_find_their_publishers_write(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """Each of them, for one round trip."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text=text)
        mark = site.log_end("default")
        results = group(celery_app.tasks["tests.jobs.tasks.sticky"].s(text).set(queue=worker.pool) for _ in range(3)).apply_async()
    answers = [worker.result_of(result) for result in results.children]
    assert [(answer["found"], served(answer)) for answer in answers] == [(True, {("default", "behind")})] * 3
    assert position_queries(site, mark) == 1


def test_body_of_a_chord_finds_what_every_part_wrote(workers: dict[str, Worker], celery_app: Celery, site: Site, text: str) -> None:
    """Also what another worker wrote than the one whose part ended last, and which publishes the body."""
    for worker in workers.values():
        worker.wait_until_seen(site.cluster.primary.write_lsn)
    site.pause_replay()
    tasks = celery_app.tasks
    parts = [
        tasks["tests.jobs.tasks.write"].s(text).set(queue="prefork"),
        tasks["tests.jobs.tasks.wait_for"].s(text).set(queue="threads"),
    ]
    body = tasks["tests.jobs.tasks.sticky_next"].s(text).set(queue="threads")
    answer = workers["threads"].result_of(chord(parts)(body))
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})


def test_task_with_a_countdown_finds_its_publishers_write(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """The position is that of the publication, whenever the task runs."""
    site.pause_replay()
    Entry.objects.create(text=text)
    answer = started(worker, celery_app, "sticky", text, countdown=1)
    assert (answer["found"], served(answer)) == (True, {("default", "behind")})


@pytest.mark.parametrize(("task", "reason"), [("always", "forced_primary"), ("sticky", "wrote")])
def test_eager_task_belongs_to_the_request(celery_app: Celery, site: Site, text: str, task: str, reason: str) -> None:
    """It sees what the request wrote, and afterwards the request goes on as before."""
    site.pause_replay()
    response = Client().post("/order_eagerly/", {"task": task, "text": text})
    answer = response.json()["answer"]
    assert (answer["found"], served(answer)) == (True, {("default", reason)})
    assert response.json()["count"] == 1
    assert current_scope() == Scope()


def test_scheduled_task_is_bound_by_nobody(
    workers: dict[str, Worker], site: Site, jobs_environment: dict[str, str], tmp_path: Path
) -> None:
    """Beat has no user: its task reads from a replica what that has."""
    worker = workers["threads"]
    worker.wait_until_seen(site.cluster.primary.write_lsn)
    site.pause_replay()
    results = redis.Redis.from_url(jobs_environment["JOBS_BROKER"], decode_responses=True)
    arguments = ["-A", "tests.jobs.beat", "beat", "-s", str(tmp_path / "schedule"), "--pidfile", "", "--loglevel", "WARNING"]
    beat = subprocess.Popen([sys.executable, "-m", "celery", *arguments], cwd=ROOT, env=jobs_environment, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: results.exists("celery-task-meta-of-beat"), timeout=60, what="beat's task to end")
    finally:
        beat.terminate()
        beat.wait(30)
    answer = worker.result_of(worker._app.AsyncResult("of-beat"))
    results.close()
    assert (answer["pointer"], served(answer)) == ("", {("replica", "replica")})


# --- Whatever happens ---


def test_message_that_comes_again_finds_what_its_first_try_wrote(worker: Worker, celery_app: Celery, site: Site, text: str) -> None:
    """With `acks_late` the broker delivers the message of a worker that died once more, and it carries no pointer for that try."""
    site.pause_replay()
    answer = started(worker, celery_app, "write_and_give_back", text)
    assert (answer["found"], served(answer)) == (True, {("default", "forced_primary")})


@pytest.mark.parametrize("task", ["tasks.fail", "tasks.take_too_long", "misspelt.misspelt"])
def test_unit_of_work_is_closed_whatever_happens(workers: dict[str, Worker], celery_app: Celery, site: Site, text: str, task: str) -> None:
    """After an exception, a time limit, or a refusal the next task of the same process finds no unit of work open."""
    worker = workers["prefork"]
    with pytest.raises(Exception, match=r"as it should|SoftTimeLimitExceeded|stiky"):
        worker.result_of(celery_app.send_task(f"tests.jobs.{task}", queue=worker.pool))
    assert started(worker, celery_app, "sticky", text)["leaked"] is False


def test_misspelt_level_is_refused(site: Site, celery_app: Celery) -> None:
    """By the task itself, and by a check before."""
    celery_app.set_current()  # another test may have imported another app
    assert checks.check_tasks() == []
    task = celery_app.task(broken, name="misspelt", db_consistency="stiky")
    try:
        (error,) = checks.check_tasks()
        assert error.id == "django_pglb.E035"
        assert 'db_consistency of misspelt: "stiky" is not a level; did you mean "sticky"?' in error.msg
        with pytest.raises(ImproperlyConfigured, match="misspelt"):
            task.apply().get()
    finally:
        celery_app.tasks.unregister("misspelt")


def test_task_that_cannot_be_put_back_runs_now(
    site: Site, celery_app: Celery, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that is down must not lose it."""
    site.pause_replay()
    Entry.objects.create(text=text)
    task = celery_app.tasks["tests.jobs.tasks.delayed"]
    pointer = jobs.text_for_job()
    task.push_request(id=text, args=(text,), kwargs={}, called_directly=False, delivery_info={"routing_key": "nowhere", "exchange": ""})
    try:
        with jobs.job_session(pointer, Consistency.DELAYED):
            with pytest.raises(Ignore):
                running.before_start(task, text, (text,), {})
            monkeypatch.setattr(type(task), "apply_async", broken_publish)
            running.before_start(task, text, (text,), {})
    finally:
        task.pop_request()
    assert "cannot be put back, and runs now" in caplog.text


def broken_publish(*_: object, **__: object) -> None:
    raise ConnectionError("as if the broker were gone")


def test_nothing_is_attached_where_everything_is_switched_off(site: Site, celery_app: Celery) -> None:
    """PGLB_ENABLED = False: messages are plain Celery's, and tasks open a unit of work that changes nothing."""
    Entry.objects.create(text="x")
    with override_settings(PGLB_ENABLED=False):
        headers: dict[str, Any] = {"pglb_pointer": "of an earlier try"}
        publishing.attach_pointer(headers)
        assert headers == {}
        assert celery_app.tasks["tests.jobs.tasks.sticky"].apply(("x",)).get()["found"] is True
