"""`ATOMIC_REQUESTS`: a page that only reads needs no primary, and one that writes is as atomic as ever."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, OperationalError, close_old_connections, connection, connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from django_pglb import mark_write, use_primary
from django_pglb.core.decision import Reason
from django_pglb.core.routing_session import Bound
from django_pglb.stores.base import decode

from ..fix_routed import REPLICAS, Routed
from .models import Publication, Reader
from .pages import publish, titles

# In which the block waits. Where a connection is open and known to be well, it is opened as Django opens it.
CONDITIONS = ("closed", "unchecked")


@pytest.fixture(autouse=True)
def atomic_requests(routed: Routed) -> Iterator[None]:
    """Every view is a transaction on the primary, whose connections live on, and are checked at first use."""
    changed = {"ATOMIC_REQUESTS": True, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    settings_dict = connections.settings["default"]
    before = {key: settings_dict[key] for key in changed}
    settings_dict.update(changed)
    connection.close()
    yield
    settings_dict.update(before)
    connection.close()


@pytest.fixture(params=CONDITIONS)
def condition(request: pytest.FixtureRequest, routed: Routed) -> str:
    """In which condition a request finds the primary's connection; the replicas have one publication."""
    Publication.objects.create(title="News")
    routed.settle()
    if request.param == "closed":
        connection.close()
    elif request.param == "unchecked":
        close_old_connections()  # as each request begins, but not in Django's test client
    return str(request.param)


@pytest.mark.parametrize("condition", [*CONDITIONS, "checked"], indirect=True)
def test_page_that_only_reads_is_read_from_a_replica(routed: Routed, condition: str) -> None:
    """The block around the view does not count while nothing has run in it."""
    response = routed.visit(Client(), titles)
    assert response.json() == {"titles": ["News"]}
    routed.assert_served(response, REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("Django connects to open the block, or checks the connection", raises=AssertionError)
def test_page_that_only_reads_asks_the_primary_nothing(routed: Routed, condition: str) -> None:
    """Neither for a transaction nor for how it is."""
    mark, before = routed.site.log_end("default"), connection.connection
    routed.visit(Client(), titles)
    assert (routed.site.statements("default", mark), connection.connection) == ([], before)


@pytest.mark.naive_is_wrong("the block cannot be opened", raises=OperationalError)
def test_page_that_only_reads_needs_no_primary(routed: Routed, condition: str) -> None:
    """While the primary is down it is answered by a replica."""
    routed.site.cluster.primary.stop("immediate")
    response = routed.visit(Client(), titles)
    assert response.json() == {"titles": ["News"]}
    routed.assert_served(response, REPLICAS, Reason.REPLICA)


def calls_of(function: Callable[[], object]) -> int:
    """Return how many functions of this package are called by `function`."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and "django_pglb" in frame.f_code.co_filename

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("condition", [*CONDITIONS, "checked"], indirect=True)
def test_block_makes_reads_no_dearer(routed: Routed, condition: str) -> None:
    """The rules are asked once for a page, and the answer holds while nothing has run in the block."""
    calls: list[int] = []

    def read_often(request: HttpRequest) -> JsonResponse:
        calls[:] = [calls_of(Publication.objects.order_by("pk").first) for _ in range(5)]
        return JsonResponse({})

    @transaction.non_atomic_requests
    def read_often_outside(request: HttpRequest) -> JsonResponse:
        return read_often(request)

    routed.assert_served(routed.visit(Client(), read_often_outside), REPLICAS, Reason.REPLICA)
    outside = min(calls)
    routed.assert_served(routed.visit(Client(), read_often), REPLICAS, Reason.REPLICA)
    # The router and the cursor ask whether the block is in use.
    assert min(calls) <= outside + 2


@pytest.mark.parametrize("condition", [*CONDITIONS, "checked"], indirect=True)
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.naive_is_wrong("the view does not see what it wrote", raises=AssertionError)
def test_view_sees_what_it_wrote(routed: Routed, condition: str, method: str) -> None:
    """After the first statement on the primary the block counts as any other."""

    def publish_and_count(request: HttpRequest) -> JsonResponse:
        before = Publication.objects.count()
        Publication.objects.create(title="Olds")
        return JsonResponse({"counts": [before, Publication.objects.count()]})

    response = routed.visit(Client(), publish_and_count, method)
    assert response.json() == {"counts": [1, 2]}
    if method == "get":
        routed.assert_served(response, {"default", *REPLICAS}, Reason.REPLICA, Reason.TRANSACTION)
    else:
        routed.assert_served(response, "default", Reason.TRANSACTION)


@pytest.mark.naive_is_wrong("the next page does not see it", raises=AssertionError)
def test_next_page_sees_what_was_written(routed: Routed) -> None:
    """The position is taken after the commit of the block, before the response."""
    routed.lag()
    client = Client()
    routed.visit(client, publish)
    response = routed.visit(client, titles)
    assert response.json() == {"titles": ["News"]}
    routed.assert_served(response, "default", Reason.BEHIND)


@pytest.mark.parametrize("method", ["get", "post"])
def test_view_that_raises_has_written_nothing(routed: Routed, condition: str, method: str) -> None:
    """All of it is rolled back, however late it began."""

    def publish_and_fail(request: HttpRequest) -> JsonResponse:
        Publication.objects.count()
        Publication.objects.create(title="Olds")
        raise ValueError("after the write")

    with pytest.raises(ValueError, match="after the write"):
        routed.visit(Client(), publish_and_fail, method)
    assert not connection.in_atomic_block
    assert [publication.title for publication in Publication.objects.using("default")] == ["News"]


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_view_that_says_so_has_written_nothing(routed: Routed, condition: str) -> None:
    """By set_rollback(), before the first statement of the block or after it."""

    def publish_and_regret(request: HttpRequest) -> JsonResponse:
        Publication.objects.create(title="Olds")
        transaction.set_rollback(True)
        return JsonResponse({})

    def regret(request: HttpRequest) -> JsonResponse:
        transaction.set_rollback(True)
        return JsonResponse({})

    routed.visit(Client(), publish_and_regret)
    routed.visit(Client(), regret)
    assert [publication.title for publication in Publication.objects.using("default")] == ["News"]


def test_hooks_run_after_the_block(routed: Routed, condition: str) -> None:
    """Those that were registered before anything ran in it, and those after; none if the view raises."""
    ran: list[str] = []

    def read_only(request: HttpRequest) -> JsonResponse:
        transaction.on_commit(lambda: ran.append("read"))
        return JsonResponse({"ran": list(ran), "count": Publication.objects.count()})

    def write_between(request: HttpRequest) -> JsonResponse:
        transaction.on_commit(lambda: ran.append("early"))
        Publication.objects.create(title="Olds")
        transaction.on_commit(lambda: ran.append("late"))
        return JsonResponse({"ran": list(ran)})

    def fail(request: HttpRequest) -> JsonResponse:
        transaction.on_commit(lambda: ran.append("never"))
        raise ValueError

    assert routed.visit(Client(), read_only).json() == {"ran": [], "count": 1}
    assert ran == ["read"]
    assert routed.visit(Client(), write_between).json() == {"ran": ["read"]}
    with pytest.raises(ValueError, match=r"^$"):
        routed.visit(Client(), fail)
    assert ran == ["read", "early", "late"]


@pytest.mark.naive_is_wrong("the hook does not see the write", raises=AssertionError)
def test_hook_writes_outside_the_block(routed: Routed) -> None:
    """What it writes is committed by itself, read back, and binds; a block that it opens is an ordinary one."""
    routed.lag()
    counts: list[int] = []

    def announce() -> None:
        Publication.objects.create(title="News")
        counts.append(Publication.objects.count())
        with transaction.atomic():
            counts.append(Publication.objects.count())

    def hook_only(request: HttpRequest) -> JsonResponse:
        transaction.on_commit(announce)
        return JsonResponse({})

    client = Client()
    response = routed.visit(client, hook_only)
    assert counts == [1, 1]
    routed.assert_served(response, "default", Reason.WROTE, Reason.TRANSACTION)
    assert routed.visit(client, titles).json() == {"titles": ["News"]}


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
@pytest.mark.parametrize("savepoint", [True, False])
@pytest.mark.naive_is_wrong("the block reads what somebody else has changed", raises=AssertionError)
def test_block_that_the_view_opens_counts(routed: Routed, condition: str, *, savepoint: bool) -> None:
    """It reads from the primary from its beginning, since what it reads is what it decides by."""
    routed.lag()
    Publication.objects.update(title="Olds")

    def decide(request: HttpRequest) -> JsonResponse:
        with transaction.atomic(savepoint=savepoint):
            return JsonResponse({"title": Publication.objects.get().title})

    response = routed.visit(Client(), decide)
    assert response.json() == {"title": "Olds"}
    routed.assert_served(response, "default", Reason.TRANSACTION)


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_block_that_the_view_opens_is_rolled_back_alone(routed: Routed, condition: str) -> None:
    """It is a savepoint of the view's transaction, also where it is the first that needs it."""

    def try_twice(request: HttpRequest) -> JsonResponse:
        for name in ("ann", "ann", "bob"):
            try:
                with transaction.atomic():
                    Reader.objects.create(name=name)
            except IntegrityError:
                continue
        return JsonResponse({})

    routed.visit(Client(), try_twice)
    assert sorted(reader.name for reader in Reader.objects.using("default")) == ["ann", "bob"]


def test_view_is_in_a_block_that_is_none_of_its_own(routed: Routed, condition: str) -> None:
    """What Django tells of the block is true from its beginning, and nothing is left of it at the end."""
    told: dict[str, Any] = {}

    def tell(request: HttpRequest) -> JsonResponse:
        told["in_atomic_block"] = connection.in_atomic_block
        told["rollback"] = transaction.get_rollback()
        with pytest.raises(RuntimeError, match="durable"), transaction.atomic(durable=True):
            pass
        with pytest.raises(transaction.TransactionManagementError):
            connection.set_autocommit(True)
        told["autocommit"] = transaction.get_autocommit()
        return JsonResponse({})

    routed.visit(Client(), tell)
    assert told == {"in_atomic_block": True, "rollback": False, "autocommit": False}
    assert (connection.in_atomic_block, transaction.get_autocommit()) == (False, True)


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_row_can_be_locked_in_the_block(routed: Routed, condition: str) -> None:
    """select_for_update() asks for a transaction while its query is compiled."""

    def lock(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"title": Publication.objects.select_for_update().get().title})

    response = routed.visit(Client(), lock)
    assert response.json() == {"title": "News"}
    routed.assert_served(response, "default")


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
@pytest.mark.naive_is_wrong("the transaction's own row is missing", raises=AssertionError)
def test_server_side_cursor_in_the_block(routed: Routed, condition: str) -> None:
    """Before the first statement on the primary it is on a replica, afterwards in the transaction."""

    def iterate(request: HttpRequest) -> JsonResponse:
        before = [publication.title for publication in Publication.objects.iterator()]
        Publication.objects.create(title="Olds")
        return JsonResponse({"titles": [before, [publication.title for publication in Publication.objects.order_by("pk").iterator()]]})

    response = routed.visit(Client(), iterate)
    assert response.json() == {"titles": [["News"], ["News", "Olds"]]}
    routed.assert_served(response, {"default", *REPLICAS}, Reason.REPLICA, Reason.TRANSACTION)


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_view_outside_a_block(routed: Routed, condition: str) -> None:
    """@non_atomic_requests is respected."""

    @transaction.non_atomic_requests
    def tell(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"in_atomic_block": connection.in_atomic_block, "count": Publication.objects.count()})

    response = routed.visit(Client(), tell)
    assert response.json() == {"in_atomic_block": False, "count": 1}
    routed.assert_served(response, REPLICAS, Reason.REPLICA)


def test_primary_that_is_down_is_an_error_where_it_is_needed(routed: Routed, condition: str) -> None:
    """As without the package; and when it is back, so is the site."""
    routed.site.cluster.primary.stop("immediate")
    with pytest.raises(DatabaseError):
        routed.visit(Client(), publish)
    assert not connection.in_atomic_block
    routed.site.cluster.primary.start()
    close_old_connections()
    assert routed.visit(Client(), publish).status_code == 200
    assert Publication.objects.using("default").count() == 2


@pytest.mark.naive_is_wrong("the view is not called at all", raises=OperationalError)
def test_view_may_survive_a_primary_that_is_down(routed: Routed, condition: str) -> None:
    """One that catches the error of its own block answers; nothing was begun, so nothing is rolled back or committed."""
    routed.site.cluster.primary.stop("immediate")

    def try_to_publish(request: HttpRequest) -> JsonResponse:
        try:
            Publication.objects.create(title="Olds")
        except DatabaseError as error:
            return JsonResponse({"error": type(error).__name__, "titles": [found.title for found in Publication.objects.all()]})
        return JsonResponse({})

    response = routed.visit(Client(), try_to_publish)
    assert response.json()["error"] == "OperationalError"
    assert not connection.in_atomic_block


def test_connection_that_broke_meanwhile_is_made_anew(routed: Routed) -> None:
    """A health check at the first use of the block replaces it, and no hook is lost by that."""
    Publication.objects.create(title="News")
    routed.settle()
    routed.site.cluster.primary.restart("fast")
    close_old_connections()
    ran: list[str] = []

    def publish_late(request: HttpRequest) -> JsonResponse:
        transaction.on_commit(lambda: ran.append("hook"))
        Publication.objects.create(title="Olds")
        return JsonResponse({"count": Publication.objects.using("default").count()})

    assert routed.visit(Client(), publish_late).json() == {"count": 2}
    assert ran == ["hook"]


@pytest.mark.naive_is_wrong("Django refuses to connect again inside a block", raises=OperationalError)
def test_connection_that_the_view_closes(routed: Routed) -> None:
    """Before anything has run in the block it may go on with another one."""

    def close_and_publish(request: HttpRequest) -> JsonResponse:
        connection.close()
        Publication.objects.create(title="News")
        raise ValueError

    close_old_connections()
    connection.ensure_connection()
    close_old_connections()
    with pytest.raises(ValueError, match=r"^$"):
        routed.visit(Client(), close_and_publish)
    assert Publication.objects.using("default").count() == 0


def test_pooled_connection(routed: Routed, settings: Any) -> None:
    """A page that only reads takes none from the pool of the primary, one that writes gives its own back."""
    connections.settings["default"].update({"OPTIONS": {"pool": {"min_size": 1, "max_size": 1, "timeout": 30}}, "CONN_MAX_AGE": 0})
    try:
        assert routed.visit(Client(), publish).status_code == 200
        connection.close()
        routed.settle()
        response = routed.visit(Client(), titles)
        assert response.json() == {"titles": ["News"]}
        routed.assert_served(response, REPLICAS, Reason.REPLICA)
        if not routed.is_naive:
            assert connection.connection is None
    finally:
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's
        connections.settings["default"].update({"OPTIONS": {}, "CONN_MAX_AGE": None})


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_view_that_names_the_primary(routed: Routed, condition: str) -> None:
    """use_primary() reads in the block, which then counts."""

    def read_twice(request: HttpRequest) -> JsonResponse:
        with use_primary():
            first = Publication.objects.count()
        return JsonResponse({"counts": [first, Publication.objects.count()]})

    response = routed.visit(Client(), read_twice)
    assert response.json() == {"counts": [1, 1]}
    routed.assert_served(response, "default", Reason.FORCED_PRIMARY, Reason.TRANSACTION)


@pytest.mark.parametrize("condition", ["closed"], indirect=True)
def test_who_was_marked_before_the_block_began_is_bound_when_it_commits(routed: Routed, condition: str) -> None:
    """By a position, although connecting forgets what a connection knew. Until then a pin holds."""
    if routed.is_naive:
        return
    stored: list[Bound] = []

    def mark_and_write(request: HttpRequest) -> JsonResponse:
        with routed.unit("ann"):
            mark_write()
        (key,) = routed.site.pointer_keys()
        stored.append(decode(routed.site.redis.get(key).decode()))
        Publication.objects.create(title="Olds")
        transaction.on_commit(lambda: stored.append(decode(routed.site.redis.get(key).decode())))
        return JsonResponse({})

    routed.visit(Client(), mark_and_write)
    assert [bound.pointer is not None for bound in stored] == [False, True]


def test_request_of_an_asynchronous_server(routed: Routed) -> None:
    """The block is opened in the thread of the view."""
    Publication.objects.create(title="News")
    routed.settle()
    connection.close()

    async def ask() -> Any:
        try:
            return await AsyncClient().get("/page/")
        finally:
            await sync_to_async(connections.close_all)()

    with override_settings(ROOT_URLCONF=(path("page/", titles),)):
        response = asyncio.run(ask())
    assert response.json() == {"titles": ["News"]}
    routed.assert_served(response, REPLICAS, Reason.REPLICA)
