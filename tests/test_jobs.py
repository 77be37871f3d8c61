"""What a job's message carries, whatever runs the job, and how the job's unit of work reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction

from django_pglb import current_decisions, export_pointer, mark_write, routing_session, runtime, use_primary
from django_pglb.context import current_scope
from django_pglb.core.job import Consistency
from django_pglb.jobs import job_session, should_come_again, text_for_job
from django_pglb.stores.carried import unsign

from .fix_site import Site
from .guestbook.models import Entry

POSITION_QUERY = "pg_current_wal_insert_lsn"


@contextmanager
def paused(site: Site) -> Iterator[None]:
    for replica in site.cluster.replicas:
        replica.pause_replay()
    yield
    for replica in site.cluster.replicas:
        replica.resume_replay()


def position_queries(site: Site, since: int) -> int:
    return sum(POSITION_QUERY in statement for statement in site.statements("default", since))


def answered_by() -> set[tuple[str, str]]:
    """Return which hosts have answered this unit of work, and why; both replicas count as one."""
    return {("replica" if alias.startswith("replica") else alias, reason) for alias, reason, _ in current_decisions()}


def test_who_read_from_the_primary_tells_of_what_no_replica_has(site: Site) -> None:
    """The row that a job is started for may be somebody else's, who has only just written it."""
    with paused(site):
        with site.host("default").connect(dbname="site") as another:
            another.execute("INSERT INTO guestbook_entry (text, created) VALUES (%s, now())", ["somebody else's"])
        with routing_session(), use_primary():
            assert Entry.objects.get().text == "somebody else's"
            text = text_for_job()
        with job_session(text, Consistency.STICKY):
            assert Entry.objects.get().text == "somebody else's"
            assert answered_by() == {("default", "behind")}


def test_unit_within_one_that_read_from_the_primary_tells_of_that_read(site: Site) -> None:
    """As where a view has seen somebody else's row, and publishes the job for it in a unit of its own."""
    with paused(site):
        with site.host("default").connect(dbname="site") as another:
            another.execute("INSERT INTO guestbook_entry (text, created) VALUES (%s, now())", ["somebody else's"])
        with routing_session(), use_primary():
            assert Entry.objects.get().text == "somebody else's"
            with routing_session():
                text = text_for_job()
        with job_session(text, Consistency.STICKY):
            assert Entry.objects.get().text == "somebody else's"
            assert answered_by() == {("default", "behind")}


def test_job_sees_what_its_publisher_wrote_before_the_store_went_down(site: Site) -> None:
    """Nobody can say what that was, so the position of now is taken, which covers it."""
    with paused(site):
        with routing_session(identity=("user", "1")):
            Entry.objects.create(text="earlier")
        site.cluster.redis.stop()
        with routing_session(identity=("user", "1")):
            text = text_for_job()
        with job_session(text, Consistency.STICKY):
            assert Entry.objects.get().text == "earlier"
            assert answered_by() == {("default", "behind")}


def test_what_was_seen_at_an_unknown_position_is_told_of(site: Site, settings: Any) -> None:
    """With monotonic reads, the position of now covers whatever any replica can have shown."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "CONSISTENCY": "monotonic"}}
    site.wait_until_online()
    with routing_session(), connections["replica1"].cursor() as cursor:
        cursor.executemany("SELECT %s", [(1,), (2,)])
        assert answered_by() == {("replica", "replica")}
        text = text_for_job()
    assert text is not None
    assert unsign(text, max_age=None)["default"].pointer is not None


def test_unit_within_one_that_wrote_tells_of_that_write(site: Site) -> None:
    """It has written nothing itself, and must not pass for one that knows of nothing."""
    with paused(site):
        with routing_session():
            Entry.objects.create(text="outer")
            with routing_session():
                pointer = export_pointer()
        with routing_session(pointer=pointer):
            assert Entry.objects.get().text == "outer"
            assert answered_by() == {("default", "behind")}


def test_who_has_done_nothing_binds_nobody(site: Site) -> None:
    """A process that has not used the primary has nothing to tell, and asks nothing. Its jobs read from a replica."""
    Entry.objects.create(text="long ago")
    site.wait_until_seen()
    runtime.reset()
    site.wait_until_online()
    mark = site.log_end("default")
    text = text_for_job()
    assert (text, position_queries(site, mark)) == (None, 0)
    with job_session(text, Consistency.STICKY):
        assert Entry.objects.get().text == "long ago"
        assert answered_by() == {("replica", "replica")}


def test_write_of_another_thread_is_told_of(site: Site) -> None:
    """Without a unit of work it is the process that counts: the thread that publishes need not be the one that wrote."""
    with paused(site):
        first = text_for_job()
        thread = threading.Thread(target=write_apart)
        thread.start()
        thread.join()
        with job_session(text_for_job(), Consistency.STICKY):
            assert Entry.objects.get().text == "apart"
            assert answered_by() == {("default", "behind")}
        assert first != text_for_job()


def write_apart() -> None:
    Entry.objects.create(text="apart")
    connections.close_all()


def test_thread_that_only_publishes_keeps_no_connection(site: Site) -> None:
    """Nobody would close it, and each thread would cost a pool one of its places."""
    Entry.objects.create(text="x")
    kept: list[object] = []

    def publish() -> None:
        kept.append(text_for_job())
        kept.append(connections["default"].connection)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()
    text, connection = kept
    assert (text is not None, connection) == (True, None)


def test_position_of_another_timeline_is_not_told_of_again(site: Site) -> None:
    """After a failover no replica could ever prove it, and a process that only publishes would send all its jobs to the primary."""
    Entry.objects.create(text="x")
    site.wait_until_seen()
    text_for_job()
    process = runtime.get_runtime()
    use = process.last_use("default")
    pointer = process.position_since("default", use)
    assert pointer is not None
    process.remember_position("default", use, pointer._replace(timeline=pointer.timeline + 1))
    text = text_for_job()
    # A new position, and the primary goes on writing by itself.
    site.wait_until_seen()
    with job_session(text, Consistency.STICKY):
        assert Entry.objects.get().text == "x"
        assert answered_by() == {("replica", "replica")}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_tells_of_what_its_parent_wrote(site: Site) -> None:
    """A script may write, and let processes that it forks publish the jobs for it."""
    with paused(site):
        Entry.objects.create(text="parent's")
        connections.close_all()
        theirs, ours = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(ours, (text_for_job() or "").encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(ours)
        text = os.read(theirs, 4096).decode()
        os.close(theirs)
        with job_session(text or None, Consistency.STICKY):
            assert Entry.objects.get().text == "parent's"
            assert answered_by() == {("default", "behind")}


def test_commit_is_told_of_although_another_thread_published_before_it(site: Site) -> None:
    """The position that it took lies after the statement, and before the commit."""
    with paused(site):
        with transaction.atomic():
            Entry.objects.create(text="committed")
            thread = threading.Thread(target=publish_apart)
            thread.start()
            thread.join()
        mark = site.log_end("default")
        text = text_for_job()
        assert position_queries(site, mark) == 1
        with job_session(text, Consistency.STICKY):
            assert Entry.objects.get().text == "committed"
            assert answered_by() == {("default", "behind")}


def publish_apart() -> None:
    text_for_job()
    connections.close_all()


def test_marked_write_is_told_of(site: Site) -> None:
    """What the cursor could not see: a position from before does not cover it."""
    Entry.objects.create(text="x")
    text_for_job()
    site.host("default").ask("SELECT pg_logical_emit_message(false, 'test', 'x')")
    mark = site.log_end("default")
    text_for_job()
    assert position_queries(site, mark) == 0
    mark_write()
    text_for_job()
    assert position_queries(site, mark) == 1


def test_write_of_unknown_outcome_keeps_its_jobs_on_the_primary(site: Site) -> None:
    """A position that is remembered proves nothing about a commit that may still be running."""
    with routing_session() as routing:
        Entry.objects.create(text="x")
        text_for_job()
        routing.cluster("default").note_unknown_outcome()
        text = text_for_job()
    assert text is not None
    assert unsign(text, max_age=None)["default"].pinned_until > 0
    with job_session(text, Consistency.STICKY):
        assert Entry.objects.exists()
        assert answered_by() == {("default", "behind")}


def test_unit_that_acts_for_nobody_asks_for_no_position_at_its_end(site: Site) -> None:
    """Nobody could be bound by it; the unit around it, if there is one, saves for those it acts for."""
    mark = site.log_end("default")
    with routing_session():
        Entry.objects.create(text="x")
    assert position_queries(site, mark) == 0
    with routing_session(identity=("user", "1")), routing_session():
        Entry.objects.create(text="x")
    assert position_queries(site, mark) == 1
    assert len(site.pointer_keys()) == 1


def test_job_that_is_published_in_a_transaction_stays_on_the_primary(site: Site) -> None:
    """For as long as any write is remembered: nobody knows when it will be committed. With autocommit off one is always open."""
    connection = transaction.get_connection()
    connection.set_autocommit(False)
    try:
        Entry.objects.create(text="x")
        text = text_for_job()
    finally:
        connection.rollback()
        connection.set_autocommit(True)
    with transaction.atomic():
        texts = [text, text_for_job()]
    for text in texts:
        assert text is not None
        assert unsign(text, max_age=None)["default"].pinned_until > time.time() + 3000


@pytest.mark.parametrize("text", [None, "bound"])
def test_job_waits_only_for_what_a_replica_will_have(site: Site, text: str | None) -> None:
    """Not without a pointer, not outside a job, and not while nothing could be proved."""
    assert not should_come_again()
    with paused(site):
        if text is not None:
            Entry.objects.create(text="x")
            text = text_for_job()
        with job_session(text, Consistency.DELAYED):
            assert should_come_again() is (text is not None)
        with transaction.atomic():
            pinned = text_for_job()
        with job_session(pinned, Consistency.DELAYED):
            assert not should_come_again()
    site.wait_until_seen()
    with job_session(text, Consistency.DELAYED):
        assert not should_come_again()
        assert Entry.objects.exists() is (text is not None)
        assert answered_by() == {("replica", "replica")}
    assert current_scope().routing is None


def test_job_that_is_published_among_rows_stays_on_the_primary(site: Site) -> None:
    """Whoever asked the primary there would wait for the rows to end, for ever."""
    texts: list[str | None] = []

    def publish_among_rows() -> None:
        with routing_session(), use_primary(), connections["default"].cursor() as cursor:
            texts.extend(text_for_job() for _ in cursor.stream("SELECT generate_series(1, 3)"))
        connections.close_all()

    # A daemon, so that a test run ends although it hangs.
    thread = threading.Thread(target=publish_among_rows, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert [unsign(text or "", max_age=None)["default"].pinned_until > time.time() + 3000 for text in texts] == [True] * 3
