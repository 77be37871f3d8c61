"""`manage.py sqlmigrate`: not for a replica."""

from __future__ import annotations

from django.core.management.commands import sqlmigrate

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, sqlmigrate.Command):
    command = "sqlmigrate"
