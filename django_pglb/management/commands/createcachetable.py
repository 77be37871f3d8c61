"""`manage.py createcachetable`: not on a replica."""

from __future__ import annotations

from django.core.management.commands import createcachetable

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, createcachetable.Command):
    command = "createcachetable"
