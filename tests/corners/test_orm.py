"""What the ORM asks beside plain queries: relations, refreshes, prefetches, rows that are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.prefetch import GenericPrefetch
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import prefetch_related_objects

from django_pglb.core.decision import Reason

from ..fix_routed import REPLICAS, Routed
from .models import Book, Card, Publication, Reader, Remark


def test_get_or_create_finds_what_it_has_created(routed: Routed) -> None:
    """Django asks for the alias of a write, so that the second call sees the first one's row, also for related managers."""
    routed.lag()
    with routed.unit():
        ann, created = Reader.objects.get_or_create(name="ann")
        assert created
        assert Reader.objects.get_or_create(name="ann") == (ann, False)
        news, created = ann.publications.get_or_create(title="News")
        assert created
        assert ann.publications.get_or_create(title="News") == (news, False)
        routed.assert_reads("default", Reason.EXPLICIT, Reason.WROTE)


def test_get_or_create_of_what_is_there_reads_from_the_primary(routed: Routed) -> None:
    """It could have to write, so it is no read that a replica may answer; and it binds nobody."""
    routed.lag()
    Reader.objects.create(name="ann")
    with routed.unit("ann"):
        assert Reader.objects.get_or_create(name="ann")[1] is False
        routed.assert_reads("default", Reason.EXPLICIT)


@pytest.mark.naive_is_wrong("what was just added is missing", raises=AssertionError)
def test_to_look_before_get_or_create_keeps_what_follows_on_replicas(routed: Routed) -> None:
    """What belongs to an object that was got for a write is read on the primary, and of one that was looked for where its reader reads."""
    Reader.objects.create(name="ann").publications.create(title="News")
    routed.settle()
    with routed.unit("ann"):
        ann, _ = Reader.objects.get_or_create(name="ann")
        assert ann.publications.count() == 1
        routed.assert_reads("default", Reason.EXPLICIT, Reason.INSTANCE)
    with routed.unit("ann"):
        assert _looked_for("ann").publications.count() == 1
        routed.assert_reads(REPLICAS, Reason.REPLICA)
    routed.lag()
    with routed.unit("ann"):
        ann.publications.create(title="More")
    with routed.unit("ann"):
        assert _looked_for("ann").publications.count() == 2
        routed.assert_reads("default", Reason.BEHIND)


def _looked_for(name: str) -> Reader:
    return Reader.objects.filter(name=name).first() or Reader.objects.get_or_create(name=name)[0]


def test_update_or_create_updates_what_it_has_created(routed: Routed) -> None:
    """It locks the row on the primary."""
    routed.lag()
    with routed.unit():
        Publication.objects.update_or_create(title="News", defaults={"summary": "old"})
        news, created = Publication.objects.update_or_create(title="News", defaults={"summary": "new"})
        assert (created, news.summary) == (False, "new")
    assert Publication.objects.using("default").get().summary == "new"


@pytest.mark.naive_is_wrong("the row is not on the replica yet", raises=ObjectDoesNotExist)
def test_refresh_of_what_was_just_created(routed: Routed) -> None:
    """refresh_from_db() finds it on the primary, where it was written."""
    routed.lag()
    with routed.unit():
        ann = Reader.objects.create(name="ann")
        ann.name = "bob"
        ann.refresh_from_db()
        assert ann.name == "ann"
        routed.assert_reads("default", Reason.INSTANCE)


@pytest.mark.naive_is_wrong("the refresh brings the old value back", raises=AssertionError)
def test_refresh_of_what_was_just_changed(routed: Routed) -> None:
    """Also of an instance that came from a replica: saving it makes it one of the primary's."""
    Publication.objects.create(title="News", summary="old")
    routed.lag()
    with routed.unit():
        news = Publication.objects.get()
        routed.assert_reads(REPLICAS, Reason.REPLICA)
        news.summary = "new"
        news.save()
        news.refresh_from_db()
        assert news.summary == "new"
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.INSTANCE)


@pytest.mark.naive_is_wrong("the refresh brings the old value back", raises=AssertionError)
def test_refresh_on_the_next_page(routed: Routed) -> None:
    """What the same user has changed a moment ago is what the refresh finds."""
    news = Publication.objects.create(title="News", summary="old")
    routed.lag()
    with routed.unit("ann"):
        Publication.objects.update(summary="new")
    news._state.db = "replica1"
    with routed.unit("ann"):
        news.refresh_from_db()
        assert news.summary == "new"
        routed.assert_reads("default", Reason.BEHIND)


# What belongs to a reader, each way that Django has to get there: from the instance, or from one that is loaded first.
OF_INSTANCE: dict[str, Callable[[Reader], Any]] = {
    "reverse manager": lambda ann: ann.publications.count(),
    "reverse one to one": lambda ann: ann.card,
    "many to many": lambda ann: ann.favourites.count(),
    "prefetch of an instance": lambda ann: prefetch_related_objects([ann], "favourites") or ann.favourites.all(),
    "refresh": lambda ann: ann.refresh_from_db() or ann.name,
}


def _with_subjects(remarks: list[Remark]) -> list[Remark]:
    prefetch_related_objects(remarks, "subject")
    return remarks


OF_LOADED: dict[str, Callable[[Reader], Any]] = {
    "foreign key": lambda ann: Publication.objects.using("default").get().editor == ann,
    "many to many backwards": lambda ann: Publication.objects.using("default").get().fans.get() == ann,
    "generic relation": lambda ann: Publication.objects.using("default").get().remarks.count(),
    "prefetch": lambda ann: Reader.objects.using("default").prefetch_related("publications").get().publications.all(),
    "prefetched generic key": lambda ann: Remark.objects.using("default").prefetch_related("subject").get().subject,
    "prefetched generic key of instances": lambda ann: _with_subjects(list(Remark.objects.using("default")))[0].subject,
    "prefetched generic key by a queryset": lambda ann: (
        Remark.objects.using("default").prefetch_related(GenericPrefetch("subject", [Publication.objects.all()])).get().subject
    ),
    "deferred field": lambda ann: Publication.objects.using("default").defer("summary").get().summary,
    "only": lambda ann: Reader.objects.using("default").only("pk").get().name,
    "child of a parent": lambda ann: Publication.objects.using("default").get().book,
    "parent's deferred field": lambda ann: Book.objects.using("default").defer("title").get().title,
}


@pytest.fixture
def fresh_reader(routed: Routed) -> Reader:
    """Ann with something of each kind, from the primary; no replica has her."""
    routed.lag()
    ann = Reader.objects.create(name="ann")
    Card.objects.create(reader=ann)
    book = Book.objects.create(title="News", summary="short", editor=ann)
    ann.favourites.add(book)
    Remark.objects.create(text="fine", subject=book.publication_ptr)
    return Reader.objects.using("default").get()


@pytest.mark.parametrize("kind", [*OF_INSTANCE, *OF_LOADED])
@pytest.mark.naive_is_wrong("the replica does not have it", raises=(AssertionError, ObjectDoesNotExist))
def test_what_belongs_to_an_object_from_the_primary_is_read_there(routed: Routed, fresh_reader: Reader, kind: str) -> None:
    """using("default") keeps its relations there, although nothing binds this unit of work."""
    with routed.unit():
        assert {**OF_INSTANCE, **OF_LOADED}[kind](fresh_reader)
        routed.assert_reads("default", Reason.INSTANCE, *([Reason.EXPLICIT] if kind in OF_LOADED else []))


@pytest.mark.parametrize(
    "kind", ["foreign key", "reverse manager", "many to many", "prefetch", "deferred field", "generic relation", "prefetched generic key"]
)
def test_what_belongs_to_an_object_from_a_replica_is_read_from_one(routed: Routed, kind: str) -> None:
    """One replica answers the whole unit of work."""
    ann = Reader.objects.create(name="ann")
    news = Publication.objects.create(title="News", summary="short", editor=ann)
    ann.favourites.add(news)
    Remark.objects.create(text="fine", subject=news)
    routed.settle()
    reads: dict[str, Callable[[], Any]] = {
        "foreign key": lambda: Publication.objects.get().editor,
        "reverse manager": lambda: Reader.objects.get().publications.count(),
        "many to many": lambda: Reader.objects.get().favourites.count(),
        "prefetch": lambda: Reader.objects.prefetch_related("publications").get().publications.all(),
        "deferred field": lambda: Publication.objects.defer("summary").get().summary,
        "generic relation": lambda: Publication.objects.get().remarks.count(),
        "prefetched generic key": lambda: Remark.objects.prefetch_related("subject").get().subject,
    }
    with routed.unit():
        assert reads[kind]()
        routed.assert_reads(REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("half of the page is from another replica", raises=AssertionError)
def test_prefetch_shows_one_point_in_time(routed: Routed) -> None:
    """Both queries are answered by one replica, so no reader appears without what was saved with them."""
    routed.settle()
    routed.site.cluster.replicas[1].pause_replay()
    with transaction.atomic():
        Publication.objects.create(title="News", editor=Reader.objects.create(name="ann"))
    routed.site.cluster.replicas[0].wait_until_caught_up()
    for _ in range(3):
        with routed.unit():
            pages = [[news.title for news in ann.publications.all()] for ann in Reader.objects.prefetch_related("publications")]
            assert pages in ([], [["News"]])
            routed.assert_reads(REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("what was just added is missing", raises=AssertionError)
def test_prefetch_of_what_was_just_added(routed: Routed) -> None:
    """The next page of whoever added it has it, in the main query and in the prefetched ones."""
    ann = Reader.objects.create(name="ann")
    routed.lag()
    with routed.unit("ann"):
        ann.favourites.add(Publication.objects.create(title="News", editor=ann))
    with routed.unit("ann"):
        found = Reader.objects.prefetch_related("publications", "favourites__fans").get()
        assert [news.title for news in found.publications.all()] == ["News"]
        assert [fan.name for news in found.favourites.all() for fan in news.fans.all()] == ["ann"]
        routed.assert_reads("default", Reason.BEHIND, Reason.INSTANCE)


def test_select_for_update_locks_on_the_primary(routed: Routed) -> None:
    """In a request that only reads, too: nobody else gets the row, and nobody is bound by a lock."""
    Reader.objects.create(name="ann")
    routed.lag()
    with routed.unit("ann"), transaction.atomic():
        assert Reader.objects.select_for_update().get().name == "ann"
        with routed.site.cluster.primary.connect(dbname="site") as other, pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("SELECT * FROM corners_reader FOR UPDATE NOWAIT")
    with routed.unit("ann"):
        assert Reader.objects.count() == 1
        routed.assert_reads(REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("the subject is as it was before", raises=AssertionError)
def test_generic_foreign_key_after_a_write(routed: Routed) -> None:
    """It asks no router, but the alias that the object came from: the cursor knows what this unit of work has written."""
    news = Publication.objects.create(title="News", summary="old")
    Remark.objects.create(text="fine", subject=news)
    ContentType.objects.clear_cache()
    routed.lag()
    with routed.unit():
        remark = Remark.objects.get()
        Publication.objects.update(summary="new")
        assert remark.subject.summary == "new"  # type: ignore[union-attr]
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.WROTE)


@pytest.mark.naive_is_wrong("the remark is missing", raises=AssertionError)
def test_generic_relation_on_the_next_page(routed: Routed) -> None:
    """Counting, prefetching and filtering by it see what was added."""
    news = Publication.objects.create(title="News")
    routed.lag()
    with routed.unit("ann"):
        news.remarks.create(text="fine")
    with routed.unit("ann"):
        found = Publication.objects.prefetch_related("remarks").get()
        assert [remark.text for remark in found.remarks.all()] == ["fine"]
        assert Publication.objects.filter(remarks__text="fine").exists()
        routed.assert_reads("default", Reason.BEHIND)


def test_content_type_that_is_new_is_made_once(routed: Routed) -> None:
    """A replica that does not have it yet does not make Django insert it again."""
    ContentType.objects.using("default").filter(app_label="corners", model="reader").delete()
    ContentType.objects.clear_cache()
    routed.lag()
    for _ in range(2):
        with routed.unit("ann"):
            found = ContentType.objects.get_for_model(Reader)
            assert found.model == "reader"
        ContentType.objects.clear_cache()
    assert ContentType.objects.using("default").filter(app_label="corners", model="reader").count() == 1


@pytest.mark.naive_is_wrong("the child is missing", raises=ObjectDoesNotExist)
def test_child_of_a_parent_that_was_just_saved(routed: Routed) -> None:
    """Both tables are written on the primary and read there: by the child, and by the way from its parent."""
    routed.lag()
    with routed.unit("ann"):
        Book.objects.create(title="Novel", pages=100)
    with routed.unit("ann"):
        assert Publication.objects.get(title="Novel").book.pages == 100
        routed.assert_reads("default", Reason.BEHIND)


@pytest.mark.naive_is_wrong("the parent's columns are the old ones", raises=AssertionError)
def test_parent_of_a_child_that_was_just_saved(routed: Routed) -> None:
    """Saving the child saves the parent's row, which is read after it, not before."""
    Book.objects.create(title="Novel", pages=100)
    routed.lag()
    with routed.unit():
        novel = Book.objects.get()
        novel.title, novel.pages = "Sequel", 200
        novel.save()
        assert Publication.objects.get().title == "Sequel"
        assert Book.objects.get().pages == 200
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.WROTE)


def test_child_is_read_from_one_replica(routed: Routed) -> None:
    """Whoever has written nothing gets both tables' columns from there."""
    Book.objects.create(title="Novel", pages=100)
    routed.settle()
    with routed.unit():
        book = Publication.objects.get().book
        assert (book.title, book.pages) == ("Novel", 100)
        routed.assert_reads(REPLICAS, Reason.REPLICA)


@pytest.mark.naive_is_wrong("the field is as it was before", raises=AssertionError)
def test_deferred_field_after_a_write(routed: Routed) -> None:
    """An instance from a replica gets what is missing from where this unit of work has written."""
    Publication.objects.create(title="News", summary="old")
    routed.lag()
    with routed.unit():
        news = Publication.objects.defer("summary").get()
        Publication.objects.update(summary="new")
        assert news.summary == "new"
        routed.assert_reads({"default", *REPLICAS}, Reason.REPLICA, Reason.WROTE)


@pytest.mark.naive_is_wrong("the query and what it is about are of two servers", raises=AssertionError)
def test_subquery_after_a_write(routed: Routed) -> None:
    """It is part of one statement, which runs where this unit of work has written."""
    routed.lag()
    with routed.unit():
        Publication.objects.create(title="News", editor=Reader.objects.create(name="ann"))
        assert Publication.objects.filter(editor__in=Reader.objects.filter(name="ann")).count() == 1
        routed.assert_reads("default", Reason.WROTE)


def test_subquery_that_names_the_primary(routed: Routed) -> None:
    """Django refuses it in a query that a replica would answer, and takes it in one that names the primary as well."""
    Publication.objects.create(title="News", editor=Reader.objects.create(name="ann"))
    routed.settle()
    inner = Reader.objects.using("default").filter(name="ann")
    with routed.unit():
        with pytest.raises(ValueError, match="Subqueries aren't allowed across different databases"):
            Publication.objects.filter(editor__in=inner).count()
        assert Publication.objects.using("default").filter(editor__in=inner).count() == 1
        routed.assert_reads("default", Reason.EXPLICIT)
