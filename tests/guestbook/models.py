"""What the tests write and read."""

from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=50)


class Entry(models.Model):
    text = models.CharField(max_length=200)
    author = models.ForeignKey(Author, null=True, on_delete=models.CASCADE, related_name="entries")
    created = models.DateTimeField(auto_now_add=True)


class Note(models.Model):
    """Belongs to any object, by a generic foreign key, which asks no router."""

    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveIntegerField()
    subject = GenericForeignKey()
