"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig


class CeleryConfig(AppConfig):
    name = "django_pglb.contrib.celery"
    # "celery" alone is likely to be taken.
    label = "django_pglb_celery"
    verbose_name = "PostgreSQL load balancing for Celery"

    def ready(self) -> None:
        """Listen to Celery. Imported here, as Celery is an optional package."""
        from . import checks, publishing, running

        publishing.connect()
        running.connect()
        checks.connect()
