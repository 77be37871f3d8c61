"""Units of work that are no requests: commands, consumers of messages, other processes. Value, host and reason."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import signing
from django.core.management import BaseCommand, call_command
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from django_pglb import current_decisions, export_pointer, routing_session, use_replicas
from django_pglb.core.decision import Reason
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.stores.carried import sign, unsign

from .fix_served import site_environment
from .fix_site import Served, Site
from .guestbook.models import Entry
from .served.program import ROOT
from .test_read_your_writes import signed_in

BEHIND = [("default", Reason.BEHIND)]


def where() -> list[tuple[str, Reason]]:
    """The host and reason of each kind of statement so far; replicas have no names here."""
    return [("a replica" if d.alias.startswith("replica") else d.alias, d.reason) for d in current_decisions()]


class Remembering(BaseCommand):
    """A command that keeps what it read, and who served it and why."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.where: list[tuple[str, Reason]] = []

    def look(self) -> None:
        self.counts.append(Entry.objects.count())
        self.where = where()


class Import(Remembering):
    """Acts for somebody."""

    @routing_session(identity=("user", "7"))
    def handle(self, *args: Any, **options: Any) -> None:
        self.look()
        Entry.objects.create(text="imported")
        self.look()


class Report(Remembering):
    """Stale is fine."""

    @use_replicas()
    def handle(self, *args: Any, **options: Any) -> None:
        self.look()


class Plain(Remembering):
    """Knows nothing of this package."""

    def handle(self, *args: Any, **options: Any) -> None:
        Entry.objects.create(text="by a command")
        self.look()


def test_command_that_acts_for_somebody_binds_them(site: Site) -> None:
    """It reads from a replica until it writes, and who it acted for sees what it wrote."""
    site.pause_replay()
    command = Import()
    call_command(command)
    assert command.counts == [0, 1]
    assert command.where == [("a replica", Reason.REPLICA), ("default", Reason.WRITE), ("default", Reason.WROTE)]
    with routing_session(identity=("user", "7")):
        assert (Entry.objects.count(), where()) == (1, BEHIND)
    with routing_session(identity=("user", "8")):
        assert (Entry.objects.count(), where()) == (0, [("a replica", Reason.REPLICA)])


def test_report_reads_a_replica_whatever_it_lacks(site: Site) -> None:
    """Its process has no unit of work but the one that use_replicas() opens."""
    site.pause_replay()
    Entry.objects.create(text="x")
    command = Report()
    call_command(command)
    assert (command.counts, command.where) == ([0], [("a replica", Reason.STALE_ALLOWED)])
    assert current_decisions() == ()


def test_command_inside_a_request_is_part_of_it(site: Site, rf: RequestFactory) -> None:
    """What it writes the request has written; a report in between reads a replica and changes nothing about that."""
    site.pause_replay()
    plain, report = Plain(), Report()
    counts = []

    def view(request: HttpRequest) -> HttpResponse:
        if request.GET:
            call_command(plain)
            call_command(report)
        counts.append(Entry.objects.count())
        return HttpResponse()

    middleware = LoadBalancingMiddleware(view)
    ann = {"Authorization": "Token ann"}
    assert Served(middleware(rf.get("/?run=1", headers=ann))).reasons == {Reason.WRITE, Reason.WROTE, Reason.STALE_ALLOWED}
    assert (plain.counts, plain.where) == ([1], [("default", Reason.WRITE), ("default", Reason.WROTE)])
    assert (report.counts, report.where[2:]) == ([0], [("a replica", Reason.STALE_ALLOWED)])
    assert Served(middleware(rf.get("/", headers=ann))).decisions[0][:2] == BEHIND[0]
    assert Served(middleware(rf.get("/"))).reasons == {Reason.REPLICA}
    assert counts == [1, 1, 0]


class Consumer:
    """What a consumer of Channels is to this package: a coroutine per message, in a task that lives as long as its connection."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id

    async def receive(self, text: str | None = None) -> tuple[int, list[tuple[str, Reason]]]:
        """Write `text`, if there is one, and count."""
        async with routing_session(identity=("user", self.user_id)):
            if text is not None:
                await Entry.objects.acreate(text=text)
            return await Entry.objects.acount(), where()


def test_consumer_sees_what_its_user_wrote_message_by_message(site: Site) -> None:
    """Also on another connection of theirs. Another user's connection, in the same event loop, reads a replica."""
    site.pause_replay()

    async def converse() -> list[Any]:
        ann, also_ann, bob = Consumer("1"), Consumer("1"), Consumer("2")
        return [await consumer.receive(text) for consumer, text in [(bob, None), (ann, "x"), (ann, None), (also_ann, None), (bob, None)]]

    written = (1, [("default", Reason.WRITE), ("default", Reason.WROTE)])
    from_replica = (0, [("a replica", Reason.REPLICA)])
    assert asyncio.run(converse()) == [from_replica, written, (1, BEHIND), (1, BEHIND), from_replica]


def test_consumers_work_side_by_side(site: Site) -> None:
    """Messages of several users at once: each is bound by its own user alone."""
    site.pause_replay()

    async def converse() -> list[Any]:
        await Consumer("1").receive("x")
        return list(await asyncio.gather(*(Consumer(str(1 + number % 2)).receive() for number in range(6))))

    assert asyncio.run(converse()) == [(1, BEHIND), (0, [("a replica", Reason.REPLICA)])] * 3


def test_consumer_sees_what_its_user_wrote_in_the_browser(user: Any, site: Site) -> None:
    """The user id is all that they share."""
    browser = signed_in(user)
    site.pause_replay()
    browser.post("/write/", {"text": "x"})
    assert asyncio.run(Consumer(str(user.pk)).receive()) == (1, BEHIND)


# --- Other processes ---


class Elsewhere:
    """A process that runs `tests.elsewhere`, asked one thing at a time."""

    def __init__(self, site: Site) -> None:
        command, environment = [sys.executable, "-m", "tests.elsewhere"], site_environment(site.cluster)
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.hear()

    def ask(self, what: str, argument: str | None) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, argument]) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the other process has ended: {self.process.wait(60)}"
        return json.loads(line)

    def end(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def elsewhere(site: Site) -> Iterator[Elsewhere]:
    """Another process of the site, which sees both replicas online."""
    process = Elsewhere(site)
    yield process
    process.end()


def expired(pointer: str) -> str:
    class AnHourAgo(signing.TimestampSigner):
        def timestamp(self) -> str:
            return signing.b62_encode(int(time.time()) - 3700)

    plain = signing.TimestampSigner(salt="django_pglb.pointer").unsign(pointer)
    return AnHourAgo(salt="django_pglb.pointer").sign(plain)


def foreign(pointer: str) -> str:
    bounds = unsign(pointer, max_age=60)
    with override_settings(SECRET_KEY="another site's"):
        return sign(bounds)


def test_pointer_binds_another_process(site: Site, elsewhere: Elsewhere) -> None:
    """With it the other process reads the primary, and says why; without it a replica; what is not acceptable is refused in words."""
    site.pause_replay()
    with routing_session():
        Entry.objects.create(text="mine")
        pointer = export_pointer()
    assert elsewhere.ask("read", pointer) == ["mine", ["default", "behind"]]
    assert elsewhere.ask("read", None) in [[None, [alias, "replica"]] for alias in ("replica1", "replica2")]
    assert elsewhere.ask("read", expired(pointer)) == ["the signed pointer has expired: it is older than POINTER_SECONDS, 3600 s"]
    for text in (foreign(pointer), pointer[:-1], ""):
        refusal = "not a signed pointer of this site: it was damaged, or signed with another SECRET_KEY"
        assert elsewhere.ask("read", text) == [refusal]


def test_pointer_of_another_process_binds_this_one(site: Site, elsewhere: Elsewhere) -> None:
    """A request that asked another service to write must see what that wrote."""
    site.pause_replay()
    with routing_session(pointer=elsewhere.ask("write", "elsewhere")):
        assert (Entry.objects.get().text, where()) == ("elsewhere", BEHIND)
    with routing_session():
        assert (Entry.objects.count(), where()) == (0, [("a replica", Reason.REPLICA)])


OUTSIDE = """
from django_pglb.signals import statement_routed
from tests.guestbook.models import Entry
told = []
statement_routed.connect(lambda decision, **_: told.append(decision), weak=False)
print(Entry.objects.count(), *(word for decision in told for word in decision))
"""


def test_shell_reads_from_the_primary(site: Site) -> None:
    """`manage.py shell` knows of no unit of work, and shows what is there."""
    site.pause_replay()
    Entry.objects.create(text="x")
    command = [sys.executable, "-m", "django", "shell", "-v", "0", "-c", OUTSIDE]
    shell = subprocess.run(
        command, cwd=ROOT, env=site_environment(site.cluster), stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    assert shell.stdout.split() == ["1", "default", "outside_session"]
