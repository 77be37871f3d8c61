"""The same with pytest-django."""

from __future__ import annotations

import pytest
from django.test import Client

from django_pglb.testing import assert_served_by

from .models import Note


@pytest.mark.django_db
def test_ordinary(client: Client) -> None:
    """The usual mark is enough."""
    Note.objects.create(text="x")
    with assert_served_by("default", reasons=["transaction"]):
        assert client.get("/read/").content == b"None x"


@pytest.mark.django_db(transaction=True, databases=["default", "replica"])
def test_mirror(client: Client) -> None:
    """With the alias allowed, the mirror answers."""
    Note.objects.create(text="x")
    with assert_served_by("replica", reasons=["replica"]):
        assert client.get("/read/").content == b"None x"
