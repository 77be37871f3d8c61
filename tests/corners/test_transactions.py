"""Transactions and what runs after them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.test import Client

from django_pglb.core.decision import Reason

from ..fix_routed import REPLICAS, Routed
from .models import Publication, Reader
from .pages import titles


@pytest.mark.naive_is_wrong("the transaction does not see its own row", raises=AssertionError)
def test_transaction_sees_what_it_wrote(routed: Routed) -> None:
    """exists(), count() and get() after create(), before the commit."""
    routed.lag()
    with routed.unit(), transaction.atomic():
        Reader.objects.create(name="ann")
        assert Reader.objects.filter(name="ann").exists()
        assert Reader.objects.count() == 1
        routed.assert_reads("default", Reason.TRANSACTION)


@pytest.mark.naive_is_wrong("what was read and what is changed are of two servers", raises=AssertionError)
def test_transaction_reads_before_it_writes(routed: Routed) -> None:
    """What a transaction reads first is what it decides by, so no replica answers it: here of a row that somebody else changed."""
    news = Publication.objects.create(title="News", summary="old")
    routed.lag()
    Publication.objects.update(summary="new")
    with routed.unit(), transaction.atomic():
        assert Publication.objects.get(pk=news.pk).summary == "new"
        routed.assert_reads("default", Reason.TRANSACTION)


@pytest.mark.naive_is_wrong("a savepoint that is rolled back is not there to begin with", raises=AssertionError)
def test_savepoint_that_is_rolled_back(routed: Routed) -> None:
    """What came before it is seen after it, and what was in it is not."""
    routed.lag()
    with routed.unit(), transaction.atomic():
        Reader.objects.create(name="ann")
        with suppress(IntegrityError), transaction.atomic():
            Reader.objects.create(name="bob")
            Reader.objects.create(name="ann")
        assert [reader.name for reader in Reader.objects.all()] == ["ann"]
        routed.assert_reads("default", Reason.TRANSACTION)


def test_transaction_that_is_rolled_back(routed: Routed) -> None:
    """Nothing is there afterwards, wherever one looks; the unit of work that tried goes on reading from the primary."""
    routed.lag()
    with routed.unit():
        with transaction.atomic():
            Reader.objects.create(name="ann")
            transaction.set_rollback(True)
        assert Reader.objects.count() == 0
        routed.assert_reads("default", Reason.WROTE)


@pytest.mark.naive_is_wrong("the hook does not see what was committed", raises=AssertionError)
def test_hook_sees_what_was_committed(routed: Routed) -> None:
    """on_commit() runs in the unit of work that wrote, so it reads from the primary: indexing, mails, notifications."""
    routed.lag()
    seen: list[list[str]] = []
    with routed.unit():
        with transaction.atomic():
            Publication.objects.create(title="News")
            transaction.on_commit(lambda: seen.append([news.title for news in Publication.objects.all()]))
        assert seen == [["News"]]
        routed.assert_reads("default", Reason.WROTE)


@pytest.mark.naive_is_wrong("the hook finds a row that is not there any more", raises=AssertionError)
def test_hook_in_a_request(routed: Routed) -> None:
    """It runs before the response, and what it reads and writes counts as the request's."""
    news = Publication.objects.create(title="News")
    routed.lag()
    seen: list[int] = []

    def replace(request: HttpRequest) -> JsonResponse:
        with transaction.atomic():
            news.delete()
            transaction.on_commit(lambda: seen.append(Publication.objects.count()))
            transaction.on_commit(lambda: Publication.objects.create(title="Olds"), robust=True)
        return JsonResponse({})

    client = Client()
    response = routed.visit(client, replace)
    assert seen == [0]
    routed.assert_served(response, "default", Reason.TRANSACTION, Reason.WROTE)
    response = routed.visit(client, titles)
    assert response.json() == {"titles": ["Olds"]}
    routed.assert_served(response, "default", Reason.BEHIND)


def test_hook_of_a_transaction_that_only_read(routed: Routed) -> None:
    """It reads as the unit of work does."""
    Publication.objects.create(title="News")
    routed.settle()
    seen: list[int] = []
    with routed.unit():
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(Publication.objects.count()))
        assert seen == [1]
        routed.assert_reads(REPLICAS, Reason.REPLICA)


def test_durable_block(routed: Routed) -> None:
    """It is one, and none inside another."""
    routed.lag()
    with routed.unit():
        with transaction.atomic(durable=True):
            Reader.objects.create(name="ann")
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"), transaction.atomic(durable=True):
            pass
        assert Reader.objects.using("default").count() == 1


@pytest.mark.naive_is_wrong("rows are read that were locked elsewhere", raises=AssertionError)
def test_read_under_a_lock_is_as_fresh_as_the_lock(routed: Routed) -> None:
    """Lock the parent, then read the children without a lock: the usual way to count before one more is allowed."""
    ann = Reader.objects.create(name="ann")
    routed.lag()
    Publication.objects.create(title="News", editor=ann)
    with routed.unit(), transaction.atomic():
        locked = Reader.objects.select_for_update().get(name="ann")
        assert Publication.objects.filter(editor=locked).count() == 1
        routed.assert_reads("default", Reason.TRANSACTION)
