"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class DjangoPglbConfig(AppConfig):
    name = "django_pglb"
    verbose_name = "PostgreSQL load balancing"

    def ready(self) -> None:
        """Register the checks and listen to Django. Imported here, since models and settings are complete only now."""
        from . import checks, oversights, pickling, receivers, seams

        # Under a tag of its own, and not under `database`: they open no connection, so they run with every `check`.
        register(checks.check, checks.TAG)
        # This one asks the store: only where somebody means to look at the running site.
        register(checks.check_stores, checks.TAG, deploy=True)
        receivers.connect()
        oversights.watch()
        pickling.register()
        seams.install()
