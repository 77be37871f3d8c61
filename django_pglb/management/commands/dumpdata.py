"""`manage.py dumpdata`: not of a replica, which Django would take for one without tables."""

from __future__ import annotations

from django.core.management.commands import dumpdata

from django_pglb.management.primary_only import PrimaryOnly


class Command(PrimaryOnly, dumpdata.Command):
    command = "dumpdata"
