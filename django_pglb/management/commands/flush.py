"""`manage.py flush`: not of a replica."""

from __future__ import annotations

from django.core.management.commands import flush

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, flush.Command):
    command = "flush"
