"""The order of the rules on a real site: which alias, and why. A router that sends everything to the primary fails these."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import connection, connections, router, transaction
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings

from django_pglb import (
    connection_for_read,
    current_decisions,
    ignore_writes,
    mark_write,
    pointers,
    replica_reads,
    routing_session,
    runtime,
    use_primary,
    use_replicas,
)
from django_pglb.context import current_scope
from django_pglb.core.decision import Reason
from django_pglb.core.job import Consistency
from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import UNBOUND, Bound, ClusterSession
from django_pglb.jobs import job_session
from django_pglb.signals import statement_routed

from .fix_site import Served, Site
from .guestbook.models import Author, Entry, Note

pytestmark = pytest.mark.usefixtures("site")


def where() -> list[tuple[str, Reason]]:
    """The alias and reason of each kind of statement so far in this unit of work."""
    return [(decision.alias, decision.reason) for decision in current_decisions()]


def reasons() -> set[Reason]:
    return {decision.reason for decision in current_decisions()}


def test_outside_a_routing_session_the_primary_answers() -> None:
    """Shells and plain jobs read from the primary, and nothing is counted."""
    assert router.db_for_read(Entry) == "default"
    assert Entry.objects.count() == 0
    assert current_decisions() == ()


def test_explicit_replica_outside_a_session_is_answered_by_the_primary(site: Site) -> None:
    """The cursor of a replica's alias obeys the same policy: the server that is asked is the primary."""
    mark = site.log_end("default")
    Entry.objects.using("replica1").count()
    assert [text for text in site.statements("default", mark) if "guestbook_entry" in text]


def test_one_unit_reads_one_replica_and_units_use_both() -> None:
    """Ten reads of a unit go to one host; thirty units go to both."""
    seen = set()
    for _ in range(30):
        with routing_session():
            for _ in range(3):
                Entry.objects.count()
            ((alias, reason),) = where()
            assert reason is Reason.REPLICA
            seen.add(alias)
    assert seen == {"replica1", "replica2"}


def test_use_primary_and_use_replicas() -> None:
    """The innermost wins, and both open a unit of work where there is none."""
    with use_primary():
        Entry.objects.count()
        assert where() == [("default", Reason.FORCED_PRIMARY)]
        with use_replicas():
            Entry.objects.count()
            assert where()[1][1] is Reason.STALE_ALLOWED
    assert current_scope().routing is None


def test_reads_inside_a_transaction_stay_on_the_primary() -> None:
    """Also inside use_replicas(), and with autocommit off."""
    with routing_session(), transaction.atomic(), use_replicas():
        Entry.objects.count()
        assert where() == [("default", Reason.TRANSACTION)]
    with routing_session():
        connection.set_autocommit(False)
        try:
            Entry.objects.count()
            assert where() == [("default", Reason.TRANSACTION)]
        finally:
            connection.rollback()
            connection.set_autocommit(True)


def test_reads_after_a_write_stay_on_the_primary_unless_stale_is_fine(site: Site) -> None:
    """Wrote, then use_replicas() for the part that may be old, then wrote again."""
    with routing_session():
        Entry.objects.create(text="x")
        Entry.objects.count()
        with use_replicas():
            Entry.objects.count()
        Entry.objects.count()
        assert [reason for _, reason in where()] == [Reason.WRITE, Reason.WROTE, Reason.STALE_ALLOWED]


def test_ignored_writes_bind_nobody(site: Site) -> None:
    """A view counter neither keeps its own unit on the primary nor saves a pointer."""
    with routing_session(identity=("test", "reader")):
        with ignore_writes():
            Entry.objects.create(text="x")
        Entry.objects.count()
        assert [reason for _, reason in where()] == [Reason.WRITE, Reason.REPLICA]
    assert site.pointer_keys() == []


def test_mark_write_counts_as_a_write() -> None:
    """What the cursor could not see can be told."""
    with routing_session():
        mark_write()
        Entry.objects.count()
        assert where() == [("default", Reason.WROTE)]
    with pytest.raises(ValueError, match="belongs to no cluster"):
        mark_write("nowhere")


@pytest.mark.parametrize("kind", ["generic foreign key", "get_next_by"])
def test_reads_that_ask_no_router_obey_the_policy_at_the_cursor(site: Site, kind: str) -> None:
    """They go by the alias that the instance came from; after a write the primary answers them all the same."""
    author = Author.objects.create(name="a")
    first, second = Entry.objects.create(text="1"), Entry.objects.create(text="2")
    Note.objects.create(subject=author)
    ContentType.objects.clear_cache()
    site.cluster.wait_until_replicas_caught_up()

    def read(instance: Any) -> Any:
        return instance.subject if kind == "generic foreign key" else instance.get_next_by_created()

    with routing_session():
        instance: Any = Note.objects.get() if kind == "generic foreign key" else Entry.objects.get(pk=first.pk)
        assert instance._state.db != "default"
        mark_write()
        mark = site.log_end("default")
        assert read(instance) == (author if kind == "generic foreign key" else second)
        assert where()[-1] == ("default", Reason.WROTE)
        assert [text for text in site.statements("default", mark) if "guestbook_" in text]
        assert instance._state.db != "default"


def test_explicit_replica_is_used_if_it_is_fit(site: Site) -> None:
    """Within a unit of work using("replica2") is served there, and a write on it goes to the primary."""
    with routing_session():
        Entry.objects.using("replica2").count()
        assert where() == [("replica2", Reason.REPLICA)]
        Entry.objects.using("replica2").create(text="x")
        assert where()[1:] == [("default", Reason.WRITE)]
    assert Entry.objects.count() == 1


def test_writes_always_have_an_alias() -> None:
    """Also of an instance that came from a replica."""
    with routing_session():
        entry = Entry(text="x")
        entry._state.db = "replica1"
        assert router.db_for_write(Entry, instance=entry) == "default"
        entry.save()
        assert entry._state.db == "default"


def test_objects_of_one_cluster_may_be_related() -> None:
    """An object from a replica can be assigned to one from the primary."""
    author, entry = Author(name="a"), Entry(text="x")
    author._state.db, entry._state.db = "replica1", "default"
    assert router.allow_relation(author, entry)


def test_replicas_are_not_migrated() -> None:
    """And the primary is not forbidden."""
    assert not router.allow_migrate("replica1", "guestbook")
    assert router.allow_migrate("default", "guestbook")


def test_connection_for_read_is_for_raw_sql_on_a_replica() -> None:
    """It follows the same rules as the ORM."""
    with routing_session():
        with connection_for_read().cursor() as cursor:
            cursor.execute("SELECT count(*) FROM guestbook_entry")
            assert cursor.fetchone() == (0,)
        assert reasons() == {Reason.REPLICA}
        mark_write()
        assert connection_for_read() is connections["default"]


def test_raw_cursor_on_the_primary_stays_there_as_explicit() -> None:
    """connection.cursor() names the primary, and the reason says so."""
    with routing_session(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert where() == [("default", Reason.EXPLICIT)]


def test_overrides_decorate_functions_sync_and_async() -> None:
    """Each call has its own scope, which ends with it."""

    @use_primary()
    def forced() -> str | None:
        return current_scope().forced

    @use_replicas()
    async def stale() -> str | None:
        return current_scope().forced

    async def block() -> str | None:
        async with use_primary():
            return current_scope().forced

    assert forced() == "primary"
    assert asyncio.run(stale()) == "replicas"
    assert asyncio.run(block()) == "primary"
    assert current_scope().forced is None


def test_overrides_refuse_generators() -> None:
    """A decorated generator would run after the block has ended."""
    with pytest.raises(TypeError, match="is a generator"):

        @use_primary()
        def rows() -> Any:
            yield 1

    with pytest.raises(TypeError, match="is a generator"):

        @routing_session()
        async def more_rows() -> Any:
            yield 1


def test_overrides_refuse_classes() -> None:
    """A class would become a function without a word."""
    with pytest.raises(TypeError, match="decorate its method"):

        @use_primary()
        class View:
            pass


def test_first_read_of_a_script_waits_for_the_first_look_and_a_request_does_not(site: Site) -> None:
    """A script may have only one; a request is answered by the primary meanwhile."""
    runtime.reset()
    with routing_session():
        Entry.objects.count()
        assert reasons() == {Reason.REPLICA}
    runtime.reset()
    with use_replicas():
        Entry.objects.count()
        assert reasons() == {Reason.STALE_ALLOWED}
    runtime.reset()
    assert Served(Client().get("/newest/")).reasons == {Reason.NO_REPLICA}


def test_threads_of_a_worker_wait_for_the_same_first_look(site: Site) -> None:
    """Not only the one that comes first."""
    runtime.reset()
    at_once = threading.Barrier(4)

    def read(_: int) -> set[Reason]:
        at_once.wait()
        try:
            with routing_session():
                Entry.objects.count()
                return reasons()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [{Reason.REPLICA}] * 4


def test_database_cache_is_routed_like_any_model(site: Site) -> None:
    """Its model is none: it has a table and a little more."""
    at_database = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cached"}
    with override_settings(CACHES={**settings.CACHES, "database": at_database}):
        call_command("createcachetable", verbosity=0)
        caches["database"].set("a", 1)
        site.wait_until_seen()
        with use_replicas():
            assert caches["database"].get("a") == 1
            assert reasons() == {Reason.STALE_ALLOWED}


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("command", ["migrate", "dumpdata", "loaddata", "flush", "sqlflush", "sqlmigrate", "createcachetable"])
def test_command_that_would_do_nothing_on_a_replica_is_refused(site: Site, command: str, enabled: bool) -> None:
    """Django would report success, and `migrate` would note on the primary that it was done."""
    Entry.objects.create(text="x")
    arguments = {"flush": ["--noinput"], "loaddata": ["nothing"], "sqlmigrate": ["guestbook", "0001"]}.get(command, [])
    refusal = f"'replica1' is a replica of 'default'.*: {command} --database default"
    with override_settings(PGLB_ENABLED=enabled), pytest.raises(CommandError, match=refusal):
        call_command(command, *arguments, database="replica1")
    assert Entry.objects.count() == 1


def test_command_on_the_primary_is_djangos(site: Site) -> None:
    """Those that are refused for replicas do what they always do."""
    Entry.objects.create(text="x")
    out = StringIO()
    call_command("dumpdata", "guestbook", stdout=out)
    assert '"text": "x"' in out.getvalue()
    call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)
    assert Entry.objects.count() == 0


def test_identity_may_be_a_number(site: Site) -> None:
    """A user's primary key is one."""
    with routing_session(identity=("user", 1)):  # type: ignore[arg-type]
        Entry.objects.create(text="x")
    assert runtime.get_runtime().load("default", [("user", "1")])[0].pointer is not None


def test_threads_do_not_inherit_a_unit_of_work() -> None:
    """A thread that the code starts reads from the primary."""
    seen: list[str | None] = []
    with routing_session():
        thread = threading.Thread(target=lambda: seen.append(router.db_for_read(Entry)))
        thread.start()
        thread.join()
    assert seen == ["default"]


def test_each_answer_is_logged_and_signalled(caplog: pytest.LogCaptureFixture) -> None:
    """The debug log of django_pglb.routing and the signal say the same word."""
    heard: list[tuple[str, Reason]] = []

    def listen(decision: Any, **_: object) -> None:
        heard.append(tuple(decision))

    statement_routed.connect(listen)
    try:
        with caplog.at_level(logging.DEBUG, logger="django_pglb.routing"), routing_session():
            Entry.objects.count()
            assert heard == where()
    finally:
        statement_routed.disconnect(listen)
    ((alias, reason),) = heard
    assert caplog.messages == [f"{alias} {reason}"]


def test_the_signal_tells_which_alias_was_asked_and_whether_it_wrote(site: Site) -> None:
    """What the ORM notes on rows, and caches make keys of, is the alias asked for; where it ran is the decision's."""
    heard: list[tuple[str, str, Reason, bool]] = []

    def listen(decision: Any, primary: str, using: str, is_write: bool, **_: object) -> None:
        assert primary == "default"
        heard.append((using, *decision, is_write))

    statement_routed.connect(listen)
    try:
        with routing_session():
            read = Entry.objects.first()
            (replica,) = {alias for alias, *_ in where()}
            with connections[replica].cursor() as cursor:
                cursor.execute("UPDATE guestbook_entry SET text = 'x'")
            Entry.objects.using(replica).count()
    finally:
        statement_routed.disconnect(listen)
    assert read is None
    assert heard == [
        (replica, replica, Reason.REPLICA, False),
        (replica, "default", Reason.WRITE, True),
        (replica, "default", Reason.WROTE, False),
    ]


def test_header_is_off_unless_asked_for(settings: Any) -> None:
    """Topology and write volume are nobody's business in production."""
    settings.PGLB = {"default": {"REPLICAS": ["replica1", "replica2"]}}
    assert "Server-Timing" not in Client().get("/newest/").headers


def test_kill_switch_turns_everything_off(settings: Any, site: Site) -> None:
    """PGLB_ENABLED = False: reads on the primary, no Redis, no header, no checker."""
    settings.PGLB_ENABLED = False
    mark = site.log_end("default")
    response = Client().post("/write/", {"text": "x"})
    assert Client().get("/newest/").json() == {"text": "x"}
    assert "pglb" not in response.cookies
    assert len([text for text in site.statements("default", mark) if "guestbook_entry" in text]) == 2
    with routing_session(), use_replicas():
        mark_write()
        Entry.objects.count()
    assert site.pointer_keys() == []


def test_async_request_is_routed_and_bound(site: Site) -> None:
    """The async path of the middleware saves what an async view wrote, and binds its next read."""
    from django.test import AsyncClient

    for replica in site.cluster.replicas:
        replica.pause_replay()

    async def write_and_read() -> tuple[Any, Any]:
        client = AsyncClient()
        await client.post("/write_async/", {"text": "x"})
        response = await client.get("/newest/")
        stranger = await AsyncClient().get("/newest/")
        return response, stranger

    response, stranger = asyncio.run(write_and_read())
    assert (response.json(), Served(response).reasons) == ({"text": "x"}, {Reason.BEHIND})
    assert (stranger.json(), Served(stranger).reasons) == ({"text": None}, {Reason.REPLICA})


def test_replica_reads_applies_to_a_block_of_an_unsafe_request(rf: RequestFactory) -> None:
    """Only inside the block, by the scope."""
    from django_pglb.context import open_routing
    from django_pglb.core.routing_session import RoutingSession

    with open_routing(RoutingSession(safe_method=False)):
        Entry.objects.count()
        with replica_reads():
            Entry.objects.count()
        assert [reason for _, reason in where()] == [Reason.UNSAFE_METHOD, Reason.REPLICA]


def test_unit_inside_another_sees_and_tells_what_was_written(site: Site) -> None:
    """An inner unit must see the outer one's writes, and the outer one the inner one's."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "outer")):
        Entry.objects.create(text="outer")
        with routing_session(identity=("test", "inner")):
            assert Entry.objects.count() == 1
            Entry.objects.create(text="inner")
        assert Entry.objects.count() == 2
    with routing_session():
        with routing_session():
            Entry.objects.create(text="third")
        assert Entry.objects.count() == 3
        assert where() == [("default", Reason.WRITE), ("default", Reason.WROTE)]
    for name in ("outer", "inner"):
        with routing_session(identity=("test", name)):
            assert Entry.objects.count() == 3
            assert where() == [("default", Reason.BEHIND)]


def test_stuck_identity_binds_from_then_on(site: Site, rf: RequestFactory) -> None:
    """stick() before the first read and after it: what was written under the key is seen, and writes are saved under it."""
    from django_pglb import stick
    from django_pglb.middleware import LoadBalancingMiddleware

    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("api-key", "k")):
        Entry.objects.create(text="by key")
    counts = []

    def view(request: Any) -> HttpResponse:
        if request.GET:
            counts.append(Entry.objects.count())
        stick(request, "api-key", "k")
        counts.append(Entry.objects.count())
        return HttpResponse()

    middleware = LoadBalancingMiddleware(view)
    assert Served(middleware(rf.get("/"))).reasons == {Reason.BEHIND}
    assert Served(middleware(rf.get("/?read=first"))).reasons == {Reason.REPLICA, Reason.BEHIND}
    assert counts == [1, 0, 1]


def test_threads_of_one_unit_are_all_bound(site: Site) -> None:
    """Several reads of one request at once: none of them reads before the pointer is known."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="x")

    async def count_all() -> list[int]:
        async with routing_session(identity=("test", "writer")):
            reads = [sync_to_async(counted, thread_sensitive=False)() for _ in range(8)]
            return list(await asyncio.gather(*reads))

    def counted() -> int:
        try:
            return Entry.objects.count()
        finally:
            connections.close_all()

    assert asyncio.run(count_all()) == [1] * 8


def test_asynchronous_iteration_asks_nothing_in_the_event_loop(site: Site) -> None:
    """aiterator() asks the router in the loop; the cursor decides in its thread, and the writer sees the write."""
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="x")
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="y")

    async def texts() -> list[str]:
        async with routing_session(identity=("test", "writer")):
            return [entry.text async for entry in Entry.objects.order_by("pk").aiterator()]

    assert asyncio.run(texts()) == ["x", "y"]


def test_server_side_cursor_on_the_primary_runs_its_statement_once(site: Site) -> None:
    """Counted on the server."""
    connections["default"].ensure_connection()
    mark = site.log_end("default")
    with use_primary():
        list(Entry.objects.iterator())
    declared, *others = site.statements("default", mark)
    assert "guestbook_entry" in declared
    assert [text.split()[0] for text in others] == ["FETCH", "CLOSE"]


def test_server_side_cursors_of_two_aliases_meet_on_one_connection(site: Site) -> None:
    """Django numbers their names for each alias; both statements may belong to the primary."""
    Entry.objects.bulk_create([Entry(text=str(number)) for number in range(9)])
    for alias in ("default", "replica1"):
        connections[alias]._named_cursor_idx = 0  # type: ignore[attr-defined]  # where a new thread begins
    with use_primary():
        pairs = [
            (outer.text, inner.text)
            for outer in Entry.objects.using("replica1").iterator(chunk_size=2)
            for inner in Entry.objects.using("default").iterator(chunk_size=2)
        ]
    assert len(set(pairs)) == 81


def test_overrides_stay_in_force_in_a_unit_inside() -> None:
    """use_primary() around a decorated helper still means the primary."""
    with use_primary(), routing_session():
        Entry.objects.count()
        assert where() == [("default", Reason.FORCED_PRIMARY)]


def test_job_session_decorates_too() -> None:
    """A decorated function gets the job's level, and none of the overrides that are in force where it is called."""
    always = job_session(None, Consistency.ALWAYS)(current_scope)
    with use_replicas(), ignore_writes():
        assert (always().forced, always().ignore_writes) == ("primary", False)


def test_abandoned_generator_leaves_later_units_alone() -> None:
    """A generator that was suspended inside an override, and closed in another unit, brings nothing back."""

    def rows() -> Any:
        with use_replicas():
            yield 1
            yield 2

    with routing_session() as first:
        suspended = rows()
        next(suspended)
    with routing_session() as second:
        suspended.close()
        assert current_scope().routing is second
        assert first is not second


def test_unit_inside_one_that_has_not_read_yet_is_bound(site: Site) -> None:
    """What binds the outer one is looked up for the inner one."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="x")
    with routing_session(identity=("test", "writer")), routing_session():
        assert Entry.objects.count() == 1
        assert where() == [("default", Reason.BEHIND)]


def test_unit_inside_one_whose_store_is_down_does_not_read_as_if_nothing_bound_it(site: Site) -> None:
    """Nobody can say what the outer one must see, so neither unit reads from a replica."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="x")
    site.cluster.redis.kill()
    with routing_session(identity=("test", "writer")), routing_session():
        assert Entry.objects.count() == 1
        assert where() == [("default", Reason.STORE_ERROR)]


def test_what_another_thread_has_learned_meanwhile_binds() -> None:
    """The answer of the store is added to what is known when it comes, not to what was known when it was asked."""
    cluster, learned = ClusterSession("default"), Bound(Pointer(1, 9))

    class SlowRuntime:
        def load(self, *_: object) -> list[Bound]:
            cluster.bind(learned)
            return [UNBOUND]

    pointers._ask(SlowRuntime(), cluster, [("session", "s")])  # type: ignore[arg-type]
    assert cluster.bound == learned


def test_unit_inside_a_transaction_is_bound_by_the_position_after_it(site: Site) -> None:
    """Its own end is too early: what it wrote is committed later, and binds then by more than a pin."""
    identity = ("test", "early")
    with transaction.atomic(), routing_session(identity=identity):
        Entry.objects.create(text="x")
    bound = runtime.get_runtime().load("default", [identity])[0]
    assert bound.pointer is not None
    assert site.cluster.primary.write_lsn >= bound.pointer.lsn


def test_pointer_exported_by_a_unit_that_has_not_read_yet_binds(site: Site) -> None:
    """A request that only starts a job hands on what binds its user."""
    from django_pglb import export_pointer

    for replica in site.cluster.replicas:
        replica.pause_replay()
    with routing_session(identity=("test", "writer")):
        Entry.objects.create(text="x")
    with routing_session(identity=("test", "writer")):
        pointer = export_pointer()
    with routing_session(pointer=pointer):
        assert Entry.objects.count() == 1


def test_connection_set_up_by_a_signal_reaches_the_replica(site: Site) -> None:
    """SET in a connection_created handler is run on the connection that it was sent for, and binds nobody."""
    from django.db.backends.signals import connection_created

    def set_name(connection: Any, **_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET application_name = 'set-for-{connection.alias}'")

    connections.close_all()
    connection_created.connect(set_name)
    try:
        with routing_session(), connections["replica1"].cursor() as cursor:
            cursor.execute("SELECT current_setting('application_name')")
            assert cursor.fetchone() == ("set-for-replica1",)
            assert where() == [("replica1", Reason.REPLICA)]
    finally:
        connection_created.disconnect(set_name)
        connections.close_all()
