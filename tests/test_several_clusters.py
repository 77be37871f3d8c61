"""Several clusters in one project: each has its own pointers, store, topology and troubles, and none of them touches the other.

Entries live in `default` (replica1, replica2), authors in `archive` (archive1).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core import signing
from django.core.management import call_command
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path

from django_pglb import (
    connection_for_read,
    current_decisions,
    export_pointer,
    mark_write,
    routing_session,
    runtime,
    use_primary,
    use_replicas,
)
from django_pglb.core.decision import Reason
from django_pglb.core.job import Consistency
from django_pglb.core.topology import HostState
from django_pglb.identity import session_owners
from django_pglb.jobs import job_session, should_come_again, text_for_job
from django_pglb.signals import topology_changed
from django_pglb.stores.carried import unsign
from django_pglb.testing import wait_until

from .fix_clusters import ARCHIVE, Clusters
from .fix_site import Served
from .fix_store import interrupted_when
from .guestbook.models import Author, Entry
from .guestbook.views import sign_in
from .test_read_your_writes import signed_in

WRITER = ("test", "writer")
ENTRY_FROM_REPLICA = {("replica", Reason.REPLICA)}
AUTHOR_FROM_REPLICA = {("archive1", Reason.REPLICA)}


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def both() -> tuple[str | None, str | None]:
    """Read the newest of each cluster."""
    entry, author = Entry.objects.order_by("-pk").first(), Author.objects.order_by("-pk").first()
    return entry and entry.text, author and author.name


def decided() -> dict[str, set[tuple[str, Reason]]]:
    """Return what was decided in this unit of work, per cluster, with the two replicas of the first under one name."""
    return by_cluster(current_decisions())


def by_cluster(decisions: Any) -> dict[str, set[tuple[str, Reason]]]:
    found: dict[str, set[tuple[str, Reason]]] = {"default": set(), ARCHIVE: set()}
    for decision in decisions:
        name = "replica" if decision.alias in {"replica1", "replica2"} else decision.alias
        found[ARCHIVE if name.startswith(ARCHIVE) else "default"].add((name, decision.reason))
    return found


def served(response: Any) -> dict[str, set[tuple[str, Reason]]]:
    return by_cluster(Served(response).decisions)


def cookie_of(browser: Client) -> dict[str, Any]:
    """Return what the browser's cookie carries, per cluster."""
    return unsign(browser.cookies["pglb"].value, max_age=3600) if "pglb" in browser.cookies else {}


# --- Each its own ---


def test_reads_of_each_go_to_its_own_replicas(clusters: Clusters, browser: Client) -> None:
    """The other router says whose a model is, and ours which host answers."""
    Entry.objects.create(text="here")
    Author.objects.create(name="there")
    clusters.wait_until_seen()
    response = browser.get("/read_both/")
    assert response.json() == ["here", "there"]
    assert served(response) == {"default": ENTRY_FROM_REPLICA, ARCHIVE: AUTHOR_FROM_REPLICA}
    assert clusters.archive.cluster.primary.ask("SELECT count(*) FROM pg_stat_activity") > 0
    with clusters.site.cluster.primary.connect(dbname="site") as connection:
        assert connection.execute("SELECT count(*) FROM guestbook_author").fetchone() == (0,)


@pytest.mark.parametrize("written", ["default", ARCHIVE])
def test_write_to_one_binds_reads_of_that_one_only(clusters: Clusters, browser: Client, written: str) -> None:
    """In the request itself (a GET), in the next one of the same user, and for no other user."""
    for cluster in (clusters.site.cluster, clusters.archive.cluster):
        clusters.pause(cluster)
    path = "/write_entry/" if written == "default" else "/write_author/"
    bound = {"default": ("default", Reason.BEHIND), ARCHIVE: (ARCHIVE, Reason.BEHIND)}[written]
    expected = {"default": ENTRY_FROM_REPLICA, ARCHIVE: AUTHOR_FROM_REPLICA}
    values = ["new", None] if written == "default" else [None, "new"]
    response = browser.get(path)
    assert response.json() == values
    assert served(response) == {**expected, written: {(written, Reason.WRITE), (written, Reason.WROTE)}}
    assert set(cookie_of(browser)) == {written}
    response = browser.get("/read_both/")
    assert response.json() == values
    assert served(response) == {**expected, written: {bound}}
    stranger = Client().get("/read_both/")
    assert (stranger.json(), served(stranger)) == ([None, None], expected)


def test_user_bound_in_both_leaves_each_primary_on_its_own(clusters: Clusters, browser: Client) -> None:
    """One replica that catches up takes its readers back, whatever the other cluster does; the cookie carries both pointers."""
    for cluster in (clusters.site.cluster, clusters.archive.cluster):
        clusters.pause(cluster)
    browser.get("/write_entry/")
    browser.get("/write_author/")
    carried = cookie_of(browser)
    assert set(carried) == {"default", ARCHIVE}
    assert all(bound.pointer is not None and not bound.pinned_until for bound in carried.values())
    response = browser.get("/read_both/")
    assert response.json() == ["new", "new"]
    assert served(response) == {"default": {("default", Reason.BEHIND)}, ARCHIVE: {(ARCHIVE, Reason.BEHIND)}}
    clusters.archive.cluster.replicas[0].resume_replay()
    wanted = carried[ARCHIVE].pointer.lsn
    wait_until(lambda: (clusters.archive_hosts()["archive1"].replay_lsn or 0) >= wanted, timeout=60, what="the archive to catch up")
    response = browser.get("/read_both/")
    assert response.json() == ["new", "new"]
    assert served(response) == {"default": {("default", Reason.BEHIND)}, ARCHIVE: AUTHOR_FROM_REPLICA}


def test_exported_pointer_carries_both(clusters: Clusters) -> None:
    """Whoever continues the unit of work elsewhere sees what it wrote in each cluster."""
    for cluster in (clusters.site.cluster, clusters.archive.cluster):
        clusters.pause(cluster)
    with routing_session():
        Entry.objects.create(text="new")
        Author.objects.create(name="new")
        text = export_pointer()
    with routing_session(pointer=text):
        assert both() == ("new", "new")
        assert decided() == {"default": {("default", Reason.BEHIND)}, ARCHIVE: {(ARCHIVE, Reason.BEHIND)}}


def test_transaction_on_one_leaves_reads_of_the_other_alone(clusters: Clusters) -> None:
    """What is open on one primary hides nothing of the other cluster."""
    with routing_session(), transaction.atomic(using=ARCHIVE):
        assert both() == (None, None)
        assert decided() == {"default": ENTRY_FROM_REPLICA, ARCHIVE: {(ARCHIVE, Reason.TRANSACTION)}}


@pytest.mark.parametrize("using", ["archive1", "replica1"])
def test_block_by_a_replicas_alias_is_its_own_primarys(clusters: Clusters, using: str) -> None:
    """What is written in the other cluster meanwhile stays."""
    with routing_session():
        with suppress(ValueError), transaction.atomic(using=using):
            Author.objects.using("archive1").create(name="new")
            Entry.objects.using("replica1").create(text="new")
            in_block = {alias for alias in connections if connections[alias].in_atomic_block}
            assert in_block == ({ARCHIVE, "archive1"} if using == "archive1" else {"default", "replica1", "replica2"})
            raise ValueError
        assert both() == ((None, "new") if using == "replica1" else ("new", None))


def test_subquery_that_names_a_replica_of_the_other_cluster_is_refused(clusters: Clusters) -> None:
    """As one on any other database: it would find that cluster's rows."""
    with routing_session(), pytest.raises(ValueError, match="different databases"):
        Entry.objects.filter(text__in=Author.objects.using("archive1").values("name")).count()


def test_overrides_apply_to_both(clusters: Clusters) -> None:
    """`use_primary()` and `use_replicas()` say nothing of clusters."""
    with use_primary():
        both()
        assert decided() == {"default": {("default", Reason.FORCED_PRIMARY)}, ARCHIVE: {(ARCHIVE, Reason.FORCED_PRIMARY)}}
    with use_replicas():
        both()
        assert decided() == {"default": {("replica", Reason.STALE_ALLOWED)}, ARCHIVE: {("archive1", Reason.STALE_ALLOWED)}}


@pytest.mark.parametrize("using", [ARCHIVE, "archive1"])
def test_marked_write_is_one_of_its_cluster(clusters: Clusters, using: str) -> None:
    """By any alias of it."""
    with routing_session(identity=WRITER):
        mark_write(using=using)
        both()
        assert decided() == {"default": ENTRY_FROM_REPLICA, ARCHIVE: {(ARCHIVE, Reason.WROTE)}}
    assert (len(clusters.site.pointer_keys()), len(clusters.archive.pointer_keys())) == (0, 1)


def test_connection_for_read_is_of_the_cluster_asked_for(clusters: Clusters) -> None:
    """By the primary's alias, and by the rules of that cluster."""
    with routing_session():
        mark_write()
        assert connection_for_read().alias == "default"
        assert connection_for_read(ARCHIVE).alias == "archive1"


def test_relation_across_clusters_is_left_to_the_other_routers(clusters: Clusters) -> None:
    """Nobody of the project allows it, so Django refuses it, as it does without this package."""
    author = Author.objects.create(name="there")
    with pytest.raises(ValueError, match="prevents this relation"):
        Entry.objects.create(text="here").author = author
    with routing_session(), pytest.raises(ValueError, match="prevents this relation"):
        Entry.objects.get().author = Author.objects.using("archive1").first() or author


def test_topology_changes_are_told_with_their_cluster(clusters: Clusters) -> None:
    """The one whose host went, and only that."""
    heard: list[tuple[str, str]] = []

    def hear(primary: str, topology: Any, **_: object) -> None:
        heard.append((primary, topology.by_alias.get("archive1") and topology.by_alias["archive1"].state))

    topology_changed.connect(hear)
    try:
        clusters.archive.cluster.replicas[0].kill()
        wait_until(lambda: (ARCHIVE, HostState.OFFLINE) in heard, timeout=60, what="the archive's replica to be told offline")
    finally:
        topology_changed.disconnect(hear)
    assert {primary for primary, _ in heard} == {ARCHIVE}


@contextmanager
def changed(settings: Any, primary: str, **options: Any) -> Iterator[None]:
    """Change options of one cluster."""
    before = settings.PGLB
    settings.PGLB = {**before, primary: {**before[primary], **options}}
    yield


def test_limits_are_each_clusters_own(clusters: Clusters, settings: Any) -> None:
    """The same lag is too much in one cluster and fine in the other."""
    with changed(settings, ARCHIVE, MAX_LAG_SECONDS=0.5):
        clusters.wait_until_well()
        for cluster in (clusters.site.cluster, clusters.archive.cluster):
            clusters.pause(cluster)
        Entry.objects.create(text="new")
        Author.objects.create(name="new")
        clusters.wait_for_archive(archive1=HostState.LAGGING)
        with routing_session():
            assert both() == (None, "new")
            assert decided() == {"default": ENTRY_FROM_REPLICA, ARCHIVE: {(ARCHIVE, Reason.NO_REPLICA)}}


def test_methods_are_each_clusters_own(clusters: Clusters, browser: Client, settings: Any) -> None:
    """REPLICA_METHODS of one cluster says nothing of the other's reads."""
    with changed(settings, ARCHIVE, REPLICA_METHODS=["GET", "POST"]):
        clusters.wait_until_well()
        response = browser.post("/read_both/")
    assert served(response) == {"default": {("default", Reason.UNSAFE_METHOD)}, ARCHIVE: AUTHOR_FROM_REPLICA}
    assert set(cookie_of(browser)) == {"default"}


def test_check_replicas_goes_by_the_worst_cluster(clusters: Clusters) -> None:
    """Or by the one that was asked for, by any alias of it."""

    def status(**options: Any) -> int:
        try:
            call_command("check_replicas", format="json", **options)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    clusters.archive.cluster.replicas[0].kill()
    assert status() == 2
    assert status(database=ARCHIVE) == 2
    assert status(database="replica1") == 0


# --- Jobs ---


def test_job_is_bound_in_the_cluster_that_its_publisher_wrote_to(clusters: Clusters) -> None:
    """Its reads of the other go to that one's replicas, and it waits for the one alone."""
    clusters.pause(clusters.site.cluster)
    with routing_session():
        Entry.objects.create(text="new")
        text = text_for_job()
    with job_session(text, Consistency.DELAYED):
        assert should_come_again()
        assert both() == ("new", None)
        assert decided() == {"default": {("default", Reason.BEHIND)}, ARCHIVE: AUTHOR_FROM_REPLICA}
    for replica in clusters.site.cluster.replicas:
        replica.resume_replay()
    clusters.wait_until_seen()
    with job_session(text, Consistency.DELAYED):
        assert not should_come_again()
        assert both() == ("new", None)
        assert decided() == {"default": ENTRY_FROM_REPLICA, ARCHIVE: AUTHOR_FROM_REPLICA}


# --- The trouble of one is not the other's ---


def trouble_dead(clusters: Clusters) -> None:
    clusters.archive.cluster.primary.kill()


def trouble_frozen(clusters: Clusters) -> None:
    clusters.archive.cluster.primary.freeze()


def answer(call: Callable[[], Any]) -> Any:
    """Return what `call` returns, in a thread of its own, as in a server; fail if it hangs."""

    def run() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(run).result(timeout=60)
    finally:
        pool.shutdown(wait=False)


TROUBLES = pytest.mark.parametrize("trouble", [trouble_dead, trouble_frozen], ids=["dead", "frozen"])


@TROUBLES
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known yet"])
def test_post_that_uses_one_cluster_does_not_touch_the_other(
    clusters: Clusters, browser: Client, settings: Any, trouble: Callable[[Clusters], None], is_known: bool
) -> None:
    """Nothing is asked of a primary that the request did not use, and its user is not pinned there."""
    with changed(settings, ARCHIVE, CHECK_TIMEOUT=1 if is_known else 100):
        clusters.wait_until_well()
        clusters.pause(clusters.site.cluster)
        since = clusters.archive.log_end("default")
        trouble(clusters)
        if is_known:
            clusters.wait_for_archive(archive=HostState.OFFLINE)
        response = answer(lambda: browser.post("/write_entry/"))
        clusters.archive.cluster.heal()
    assert response.json() == ["new", None]
    assert served(response) == {"default": {("default", Reason.WRITE)}, ARCHIVE: set()}
    assert {primary: bound.pinned_until for primary, bound in cookie_of(browser).items()} == {"default": 0}
    assert [text for text in clusters.archive.statements("default", since) if text.startswith("SELECT pg_current_wal_insert_lsn()")] == []
    response = browser.get("/read_both/")
    assert response.json() == ["new", None]
    assert served(response)["default"] == {("default", Reason.BEHIND)}


@TROUBLES
@pytest.mark.parametrize("after_others", [False, True], ids=["of this unit", "after others"])
def test_job_is_published_while_the_other_cluster_is_in_trouble(
    clusters: Clusters, settings: Any, trouble: Callable[[Clusters], None], after_others: bool
) -> None:
    """Nothing is asked of a primary that the publisher did not use; what follows other jobs is not held up by one that is known to be down.

    Such a job must see what those may have written there, and so reads from that primary alone.
    """
    with changed(settings, ARCHIVE, CHECK_TIMEOUT=1):
        clusters.wait_until_well()
        clusters.pause(clusters.site.cluster)
        trouble(clusters)
        clusters.wait_for_archive(archive=HostState.OFFLINE)
        text = answer(lambda: publish_after_writing(after_others=after_others))
        clusters.archive.cluster.heal()
        clusters.wait_for_archive(archive=HostState.ONLINE, archive1=HostState.ONLINE)
    connections[ARCHIVE].close()  # to a server that is gone
    with job_session(text, Consistency.STICKY):
        assert both() == ("new", None)
        expected = {(ARCHIVE, Reason.BEHIND)} if after_others else AUTHOR_FROM_REPLICA
        assert decided() == {"default": {("default", Reason.BEHIND)}, ARCHIVE: expected}


def publish_after_writing(*, after_others: bool) -> str | None:
    with routing_session():
        Entry.objects.create(text="new")
        return text_for_job(after_others=after_others)


@TROUBLES
def test_reads_of_one_cluster_go_on_while_the_other_is_in_trouble(
    clusters: Clusters, browser: Client, trouble: Callable[[Clusters], None]
) -> None:
    """A GET that writes to one and reads both: the other's replica answers without its primary."""
    clusters.pause(clusters.site.cluster)
    trouble(clusters)
    response = answer(lambda: browser.get("/write_entry/"))
    assert response.json() == ["new", None]
    assert served(response) == {"default": {("default", Reason.WRITE), ("default", Reason.WROTE)}, ARCHIVE: AUTHOR_FROM_REPLICA}
    assert set(cookie_of(browser)) == {"default"}


@pytest.mark.parametrize("path", ["/write_author_in_thread/", "/write_author_in_unit_of_thread/"])
def test_write_of_a_thread_to_the_other_cluster_binds_the_post_that_started_it(clusters: Clusters, browser: Client, path: str) -> None:
    """A thread of the view is no part of its unit of work: that this process has used the other primary meanwhile must do."""
    for cluster in (clusters.site.cluster, clusters.archive.cluster):
        clusters.pause(cluster)
    assert browser.post(path).json() == ["new", None]
    response = browser.get("/read_both/")
    assert response.json() == ["new", "new"]
    assert served(response) == {"default": {("default", Reason.BEHIND)}, ARCHIVE: {(ARCHIVE, Reason.BEHIND)}}


def test_what_was_written_to_one_binds_where_saving_for_the_other_is_interrupted(clusters: Clusters) -> None:
    """By the time limit of a task, say, while the first one's primary is waited for."""
    moment = time.monotonic()
    interrupting = interrupted_when(lambda: time.monotonic() > moment, by=SoftTimeLimitExceeded)

    def write() -> None:
        nonlocal moment
        with routing_session(identity=WRITER):
            both()
            Entry.objects.create(text="new")
            Author.objects.create(name="new")
            clusters.site.cluster.primary.freeze()
            moment = time.monotonic() + 0.3
            interrupting.__enter__()

    with pytest.raises(SoftTimeLimitExceeded):
        write()
    interrupting.__exit__(None, None, None)
    clusters.site.cluster.primary.thaw()
    with routing_session(identity=WRITER):
        assert both() == ("new", "new")
        assert {reason for _, reason in decided()["default"] | decided()[ARCHIVE]} == {Reason.BEHIND}


def test_post_that_uses_both_binds_in_both(clusters: Clusters, browser: Client) -> None:
    """Also where it only read: an unsafe method is taken to have written to what it used."""
    for cluster in (clusters.site.cluster, clusters.archive.cluster):
        clusters.pause(cluster)
    browser.post("/read_both/")
    assert set(cookie_of(browser)) == {"default", ARCHIVE}


@pytest.mark.parametrize("kind", ["killed", "frozen"])
def test_store_of_one_cluster_down_leaves_the_other_alone(clusters: Clusters, user: Any, kind: str) -> None:
    """Reads of the one go to its primary, and those of the other by its own pointers."""
    browser = signed_in(user)
    clusters.wait_until_seen()
    redis = clusters.archive.cluster.redis
    redis.kill() if kind == "killed" else redis.freeze()
    for _ in range(2):
        response = browser.get("/read_both/")
        assert served(response) == {"default": ENTRY_FROM_REPLICA, ARCHIVE: {(ARCHIVE, Reason.STORE_ERROR)}}
    clusters.pause(clusters.site.cluster)
    browser.post("/write_entry/")
    response = browser.get("/read_both/")
    assert response.json() == ["new", None]
    assert served(response) == {"default": {("default", Reason.BEHIND)}, ARCHIVE: {(ARCHIVE, Reason.STORE_ERROR)}}


def test_session_that_cannot_be_loaded_fails_no_read_of_the_other_cluster(clusters: Clusters, user: Any) -> None:
    """Who it is remains unknown, so the primary answers; sessions live in the cluster that is gone."""
    browser = signed_in(user)
    clusters.wait_until_seen()
    session_owners.clear()
    for host in clusters.site.cluster.hosts:
        host.kill()
    response = answer(lambda: browser.get("/read_author/"))
    assert response.status_code == 200
    assert response.json() == [None]
    assert served(response)[ARCHIVE] == {(ARCHIVE, Reason.STORE_ERROR)}


def test_first_read_of_a_process_does_not_wait_for_the_other_cluster(clusters: Clusters, settings: Any) -> None:
    """The hosts of its own are looked at; nothing is known of the others yet."""
    for host in clusters.archive.cluster.hosts:
        host.freeze()
    patient = {primary: {**options, "CHECK_TIMEOUT": 60} for primary, options in settings.PGLB.items()}
    settings.PGLB = patient
    with routing_session():
        assert Entry.objects.first() is None
        assert decided()["default"] == ENTRY_FROM_REPLICA
    assert {host.state for host in clusters.archive_hosts().values()} == {HostState.UNKNOWN}


def test_probes_of_one_cluster_go_on_while_the_other_hangs(clusters: Clusters, settings: Any) -> None:
    """A probe that waits for a frozen host holds up no other."""
    with changed(settings, ARCHIVE, CHECK_TIMEOUT=100):
        clusters.wait_until_well()
        for host in clusters.archive.cluster.hosts:
            host.freeze()
        replica = clusters.site.cluster.replicas[0]
        replica.kill()
        clusters.site.wait_for_states(replica1=HostState.OFFLINE)
        replica.start()
        clusters.site.wait_for_states(replica1=HostState.ONLINE)
        assert not any("timeout" in host.why for host in clusters.archive_hosts().values())


# --- The cookie ---


def test_cookie_outlives_the_shortest_memory(clusters: Clusters, browser: Client, settings: Any) -> None:
    """One text carries both: it is as old as the longest POINTER_SECONDS allows, whichever cluster was written to last."""
    short = {"POINTER_SECONDS": 60, "MAX_LAG_SECONDS": 5}
    settings.PGLB = {**settings.PGLB, "default": {**settings.PGLB["default"], **short}}
    clusters.wait_until_well()
    browser.get("/write_author/")
    assert browser.cookies["pglb"]["max-age"] == 3600
    browser.get("/write_entry/")
    assert browser.cookies["pglb"]["max-age"] == 3600
    assert set(cookie_of(browser)) == {"default", ARCHIVE}


def test_cookie_binds_for_as_long_as_its_cluster_remembers(clusters: Clusters, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first cluster's POINTER_SECONDS says nothing of what the second one remembers."""
    short = {"POINTER_SECONDS": 60, "MAX_LAG_SECONDS": 5}
    settings.PGLB = {**settings.PGLB, "default": {**settings.PGLB["default"], **short}}
    clusters.wait_until_well()
    clusters.pause(clusters.archive.cluster)
    browser = Client()
    browser.get("/write_author/")
    clusters.archive.redis.flushall()
    runtime.get_runtime().vouch(ARCHIVE)
    clock = time.time
    monkeypatch.setattr(signing.time, "time", lambda: clock() + 120)
    response = browser.get("/read_both/")
    assert response.json() == [None, "new"]
    assert served(response)[ARCHIVE] == {(ARCHIVE, Reason.BEHIND)}


# --- Views ---


def read_both(request: HttpRequest) -> JsonResponse:
    return JsonResponse(both(), safe=False)


def read_author(request: HttpRequest) -> JsonResponse:
    return JsonResponse([both_author()], safe=False)


def both_author() -> str | None:
    author = Author.objects.order_by("-pk").first()
    return author and author.name


def write_entry(request: HttpRequest) -> JsonResponse:
    entry = Entry.objects.create(text="new")
    return JsonResponse(both() if request.method == "GET" else (entry.text, None), safe=False)


def write_author(request: HttpRequest) -> JsonResponse:
    Author.objects.create(name="new")
    return JsonResponse(both(), safe=False)


def write_author_in_thread(request: HttpRequest) -> JsonResponse:
    Entry.objects.create(text="new")
    _in_thread(lambda: Author.objects.create(name="new"))
    return JsonResponse(["new", None], safe=False)


def write_author_in_unit_of_thread(request: HttpRequest) -> JsonResponse:
    Entry.objects.create(text="new")
    _in_thread(routing_session()(lambda: Author.objects.create(name="new")))
    return JsonResponse(["new", None], safe=False)


def _in_thread(call: Callable[[], object]) -> None:
    def run() -> None:
        call()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


VIEWS = (read_both, read_author, write_entry, write_author, write_author_in_thread, write_author_in_unit_of_thread)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS] + [path("sign_in/", sign_in)]
