"""What the commands of Django have in common that do nothing with a replica's alias, and say that they did."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from django_pglb.refusals import refuse_replica


class PrimaryOnly(BaseCommand):
    """Mix into a command with `--database`, before it."""

    command: str

    def handle(self, *args: Any, **options: Any) -> Any:
        refuse_replica(options["database"], self.command)
        return super().handle(*args, **options)
