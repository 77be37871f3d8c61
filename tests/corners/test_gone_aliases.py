"""Instances and QuerySets that come out of a cache after the replica they were read from is switched off, removed or renamed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connections, transaction
from django.db.models import Model, QuerySet, prefetch_related_objects
from django.db.utils import ConnectionDoesNotExist
from django.test import override_settings

from django_pglb import current_decisions, routing_session
from django_pglb.core.decision import Reason
from django_pglb.testing import assert_served_by

from ..fix_site import Site
from .models import Book, Card, Publication, Reader, Remark

REPLICAS = ("replica1", "replica2")
TABLES = (Reader, Publication, Remark, User)


class Cached(SimpleNamespace):
    """What was read on a replica: ann, her card, her book, a remark about it, a user, and QuerySets."""


class Undone(Exception):
    """Ends a block that is to be rolled back."""


def read(alias: str | None = None) -> Cached:
    def of(model: Any) -> Any:
        return model.objects.using(alias) if alias else model.objects

    ann = of(Reader).get(name="ann")
    prefetched = of(Reader).get(name="ann")
    prefetch_related_objects([prefetched], "publications", "favourites")
    news = of(Publication).get(title="News")
    return Cached(
        ann=ann,
        prefetched=prefetched,
        news=news,
        remarked=of(Publication).prefetch_related("remarks").get(title="News"),
        card=of(Card).get(),
        remark=of(Remark).get(),
        user=of(User).get(username="first"),
        deferred=of(Publication).defer("summary").get(title="News"),
        readers=of(Reader).all(),
        of_ann=ann.publications.all(),
        remarks=news.remarks.all(),
    )


@pytest.fixture
def cached(site: Site) -> Iterator[Cached]:
    """It is as it was on the replicas, which have stopped; the primary has changed since."""
    ann = Reader.objects.create(name="ann")
    Card.objects.create(reader=ann)
    news = Book.objects.create(title="News", summary="old", editor=ann).publication_ptr
    ann.favourites.add(news)
    Remark.objects.create(text="old", subject=news)
    User.objects.create(username="first")
    ContentType.objects.clear_cache()
    site.pause_replay()
    with routing_session():
        cached = read()
        assert {decision.reason for decision in current_decisions()} == {Reason.REPLICA}
    assert cached.ann._state.db in REPLICAS
    Publication.objects.update(summary="new")
    more = Publication.objects.create(title="More", summary="new", editor=ann)
    ann.favourites.add(more)
    Remark.objects.update(text="new")
    Remark.objects.create(text="newer", subject=news)
    User.objects.create(username="second")
    return cached


Use = Callable[[Cached], Any]
# In this order, since some change what others would see. Each works on a copy of its own.
USES: dict[str, tuple[Use, Any]] = {
    "foreign key": (lambda cached: cached.card.reader.favourites.count(), 2),
    "one to one backwards": (lambda cached: cached.ann.card.pk > 0, True),
    "reverse manager": (lambda cached: cached.ann.publications.count(), 2),
    "many to many": (lambda cached: cached.ann.favourites.count(), 2),
    "many to many backwards": (lambda cached: cached.news.fans.get().favourites.count(), 2),
    "child": (lambda cached: cached.news.book.summary, "new"),
    "generic relation": (lambda cached: cached.news.remarks.count(), 2),
    "generic foreign key": (lambda cached: cached.remark.subject.summary, "new"),
    "deferred field": (lambda cached: cached.deferred.summary, "new"),
    "refresh": (lambda cached: cached.remark.refresh_from_db() or cached.remark.text, "new"),
    "next by date": (lambda cached: cached.user.get_next_by_date_joined().username, "second"),
    "prefetch": (lambda cached: prefetch_related_objects([cached.ann], "publications") or len(cached.ann.publications.all()), 2),
    "prefetched before": (lambda cached: cached.prefetched.publications.all().filter(summary="new").count(), 2),
    "prefetched generic relation": (lambda cached: cached.remarked.remarks.all().filter(text="newer").count(), 1),
    "query set": (lambda cached: cached.readers.filter(favourites__summary="new").count(), 2),
    "query set of a manager": (lambda cached: cached.of_ann.filter(summary="new").count(), 2),
    "query set of a generic manager": (lambda cached: cached.remarks.filter(text="newer").count(), 1),
    "filter": (lambda cached: Publication.objects.filter(editor=cached.ann, summary="new").count(), 2),
    "get or create": (lambda cached: cached.ann.publications.get_or_create(title="More")[1], False),
    "update or create": (lambda cached: cached.ann.favourites.update_or_create(title="More", defaults={"summary": "x"})[1], False),
    "save": (lambda cached: cached.remark.save() or written(Remark, pk=cached.remark.pk).text, "old"),
    "save in its transaction": (lambda cached: save_in_transaction(cached.news) or written(Publication, title="News").summary, "old"),
    "assignment": (lambda cached: assign(cached.news, cached.ann) or written(Publication, title="News").editor_id > 0, True),
    "create by a manager": (lambda cached: cached.ann.publications.create(title="x").pk and written(Publication, title="x").title, "x"),
    "add": (lambda cached: cached.news.fans.add(Reader.objects.create(name="bob")) or cached.news.fans.using("default").count(), 2),
    "set": (lambda cached: cached.ann.favourites.set([cached.news]) or cached.ann.favourites.using("default").count(), 1),
    "clear": (lambda cached: cached.ann.favourites.clear() or cached.ann.favourites.using("default").count(), 0),
    "delete": (lambda cached: cached.remark.delete()[0], 1),
    "delete of a related manager": (lambda cached: cached.news.remarks.all().delete()[0], 1),
    "delete with a cascade": (lambda cached: cached.ann.delete() and Publication.objects.using("default").count(), 0),
}
# Where somebody writes by a name: it may be a slip.
BY_NAME = frozenset({"save in its transaction"})


def written(model: Any, **conditions: Any) -> Any:
    return model.objects.using("default").get(**conditions)


def save_in_transaction(instance: Model) -> None:
    with transaction.atomic(using=instance._state.db):
        instance.save()


def assign(news: Publication, ann: Reader) -> None:
    news.editor = ann
    news.save()


def outcomes(pickled: bytes) -> dict[str, Any]:
    """Return what comes of each use."""
    return {use: outcome(do, pickle.loads(pickled)) for use, (do, _) in USES.items()}


def outcome(do: Use, cached: Cached) -> Any:
    ContentType.objects.clear_cache()
    try:
        return do(cached)
    except Exception as error:  # noqa: BLE001 - the assertion shows all that went wrong, and not the first
        return f"{type(error).__name__}: {error}"


EXPECTED = {use: expected for use, (_, expected) in USES.items()}


@contextmanager
def switched_off() -> Iterator[None]:
    with override_settings(PGLB_ENABLED=False):
        yield


@contextmanager
def removed() -> Iterator[None]:
    """Both replicas are gone from all settings."""
    with with_aliases({}), override_settings(PGLB={"default": {"REPLICAS": [], "CHECK_INTERVAL": 0.2}}):
        yield


@contextmanager
def renamed() -> Iterator[None]:
    databases = connections.settings
    reader = {"reader1": databases["replica1"], "reader2": databases["replica2"]}
    with with_aliases(reader), override_settings(PGLB={"default": {"REPLICAS": [*reader], "CHECK_INTERVAL": 0.2}}):
        yield


@contextmanager
def dropped() -> Iterator[None]:
    """One is still in `DATABASES`, where other things may use it."""
    with override_settings(PGLB={"default": {"REPLICAS": [], "CHECK_INTERVAL": 0.2}}):
        yield


@contextmanager
def with_aliases(replicas: dict[str, Any]) -> Iterator[None]:
    """Have these aliases instead of the replicas', in this thread."""
    databases = connections.settings
    let_go(REPLICAS)
    kept = {alias: databases.pop(alias) for alias in REPLICAS}
    databases.update(replicas)
    try:
        yield
    finally:
        let_go(replicas)
        for alias in replicas:
            del databases[alias]
        databases.update(kept)


def let_go(aliases: Iterable[str]) -> None:
    """Close this thread's connections for good."""
    for alias in aliases:
        connections[alias].close()
        del connections[alias]


STATES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "switched off": switched_off,
    "removed": removed,
    "renamed": renamed,
    "dropped": dropped,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("around", [nullcontext, routing_session])
def test_what_was_pickled_works_as_from_the_primary(cached: Cached, state: str, around: Any) -> None:
    """At once, with every kind of use, inside and outside units of work, while the replicas have stopped."""
    pickled = pickle.dumps(cached)
    with STATES[state](), around():
        assert outcomes(pickled) == EXPECTED


@pytest.mark.parametrize("around", [nullcontext, routing_session])
def test_what_still_names_its_replica_works_while_all_is_switched_off(cached: Cached, around: Any) -> None:
    """Copies in this process keep the alias, and so does what was pickled otherwise: its engine is there, and asks the primary."""
    with switched_off(), around():
        named = {use: outcome(do, copy.deepcopy(cached)) for use, (do, _) in USES.items()}
    assert cached.ann._state.db in REPLICAS
    assert named == EXPECTED


@pytest.mark.parametrize("state", ["removed", "renamed"])
@pytest.mark.parametrize("around", [nullcontext, routing_session])
def test_what_still_names_a_removed_alias_works(cached: Cached, state: str, around: Any) -> None:
    """The router answers for whatever alias an instance came from, and QuerySets that are bound to one are read from the primary."""
    with STATES[state](), around():
        named = {use: outcome(do, copy.deepcopy(cached)) for use, (do, _) in USES.items() if use not in BY_NAME}
    assert named == {use: EXPECTED[use] for use in named}


def test_it_is_read_on_the_primary(cached: Cached) -> None:
    """Whatever its alias was called, its relations are the primary's, for the reason that those of an instance from there are."""
    for ann in (cached.ann, pickle.loads(pickle.dumps(cached.ann))):
        with renamed(), routing_session(), assert_served_by("default", reasons=[Reason.INSTANCE]):
            assert ann.publications.count() == 2


def test_what_was_pickled_is_read_on_replicas_while_its_own_is_there(cached: Cached) -> None:
    """A cache full of instances does not bring its readers to the primary."""
    with routing_session(), assert_served_by(*REPLICAS, reasons=[Reason.REPLICA]):
        assert pickle.loads(pickle.dumps(cached.ann)).publications.count() == 1


@pytest.mark.parametrize("kind", ["instance", "query set", "instance that was read by name", "query set that names it"])
def test_what_leaves_the_process_names_no_replica(cached: Cached, kind: str) -> None:
    """Also where this package is not installed: nothing of ours is in it. A copy that stays is what it was."""
    thing = {
        "instance": cached.ann,
        "query set": cached.remarks,
        "instance that was read by name": Reader.objects.using("replica1").get(),
        "query set that names it": Reader.objects.using("replica1"),
    }[kind]
    pickled = pickle.dumps(thing)
    assert b"django_pglb" not in pickled
    assert alias_of(pickle.loads(pickled)) == "default"
    assert alias_of(copy.copy(thing)) == alias_of(thing) != "default"
    assert alias_of(pickle.loads(pickle.dumps(copy.copy(thing)))) == "default"


def alias_of(thing: Any) -> str | None:
    alias: str | None = thing._db if isinstance(thing, QuerySet) else thing._state.db
    return alias


def test_slip_in_the_name_of_a_database_writes_nowhere(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What is read by it may be meant for a replica that is gone: that is said once."""
    for write in (Reader.objects.using("archvie").create, Reader.objects.using("archvie").update):
        with pytest.raises(ConnectionDoesNotExist, match="archvie"):
            write(name="ann")
    for _ in range(2):
        assert Reader.objects.using("archvie").count() == 0
    (record,) = [record for record in caplog.records if record.name == "django_pglb.routing" and record.levelname == "WARNING"]
    assert "archvie is not in DATABASES" in record.message


def test_dropped_alias_that_is_still_there_can_be_asked_by_name(cached: Cached) -> None:
    """A report reads all that belongs to its objects where it was told to, outside units of work."""
    with dropped():
        ann = Reader.objects.using("replica1").get()
        assert ann.publications.count() == 1


def test_transaction_by_its_name_is_the_primarys_while_all_is_switched_off(cached: Cached) -> None:
    """What is written in the block of a cached instance's alias is taken back with it."""

    def save_in_vain() -> None:
        with transaction.atomic(using=cached.remark._state.db):
            cached.remark.save()
            assert written(Remark, pk=cached.remark.pk).text == "old"
            raise Undone

    with switched_off(), pytest.raises(Undone):
        save_in_vain()
    assert written(Remark, pk=cached.remark.pk).text == "new"


def test_dead_replica_is_not_missed_while_all_is_switched_off(site: Site, cached: Cached) -> None:
    """Neither for what is read and written by its name nor for what the ORM asks its connection."""
    connections.close_all()
    for replica in site.cluster.replicas:
        replica.stop("immediate")
    with switched_off():
        for alias in REPLICAS:
            vars(connections[alias]).pop("pg_version", None)
            assert connections[alias].pg_version == connections["default"].pg_version  # type: ignore[attr-defined]
            with connections[alias].temporary_connection() as cursor:
                cursor.execute("SELECT 1")
            with transaction.atomic(using=alias):
                assert Reader.objects.using(alias).count() == 1
        assert {use: outcome(do, copy.deepcopy(cached)) for use, (do, _) in USES.items()} == EXPECTED


def test_slip_in_the_name_of_a_database_of_no_cluster_is_djangos_to_tell(site: Site) -> None:
    """Who reads a model that belongs to no cluster by an alias that is not there hears what plain Django says."""
    with override_settings(DATABASE_ROUTERS=["tests.corners.test_gone_aliases.Elsewhere"]), pytest.raises(ConnectionDoesNotExist):
        Publication.objects.using("nowhere").count()


class Elsewhere:
    """Keeps all models in a database of no cluster."""

    def db_for_write(self, model: type[Model], **_: Any) -> str:
        return "elsewhere"
