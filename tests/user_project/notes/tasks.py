"""What such a project does later."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from django_pglb.contrib.tasks import db_consistency

from .models import Note

task = import_module(settings.TASKS_PACKAGE).task


@task()
@db_consistency("delayed")
def count_notes(text: str) -> int:
    return Note.objects.filter(text=text).count()
