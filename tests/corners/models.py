"""Models with one of each kind of relation."""

from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Remark(models.Model):
    """Belongs to any object."""

    text = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveIntegerField()
    subject = GenericForeignKey()


class Publication(models.Model):
    title = models.CharField(max_length=50)
    summary = models.TextField(default="", blank=True)
    editor = models.ForeignKey("Reader", null=True, blank=True, on_delete=models.CASCADE, related_name="publications")
    remarks = GenericRelation(Remark)

    def __str__(self) -> str:
        return self.title


class Reader(models.Model):
    name = models.CharField(max_length=50, unique=True)
    favourites = models.ManyToManyField(Publication, related_name="fans")

    def __str__(self) -> str:
        return self.name


class Card(models.Model):
    reader = models.OneToOneField(Reader, on_delete=models.CASCADE)


class Book(Publication):
    """A publication with a table of its own besides."""

    pages = models.PositiveIntegerField(default=0)


class Scratch(models.Model):
    """A temporary table."""

    class Meta:
        managed = False
        db_table = "corners_scratch"
