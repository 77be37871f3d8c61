"""The engine `django_pglb.backends.postgresql`."""

from __future__ import annotations

from django.db.backends.postgresql import base

from ..mixin import LoadBalancedMixin


class DatabaseWrapper(LoadBalancedMixin, base.DatabaseWrapper):
    """Django's PostgreSQL backend, load balanced."""
