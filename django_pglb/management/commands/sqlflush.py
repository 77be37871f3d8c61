"""`manage.py sqlflush`: not for a replica."""

from __future__ import annotations

from django.core.management.commands import sqlflush

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, sqlflush.Command):
    command = "sqlflush"
