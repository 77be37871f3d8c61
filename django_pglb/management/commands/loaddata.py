"""`manage.py loaddata`: not into a replica."""

from __future__ import annotations

from django.core.management.commands import loaddata

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, loaddata.Command):
    command = "loaddata"
