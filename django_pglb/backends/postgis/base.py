"""The engine `django_pglb.backends.postgis`."""

from __future__ import annotations

from django.contrib.gis.db.backends.postgis import base

from ..mixin import LoadBalancedMixin


class DatabaseWrapper(LoadBalancedMixin, base.DatabaseWrapper):
    """Django's PostGIS backend, load balanced."""
