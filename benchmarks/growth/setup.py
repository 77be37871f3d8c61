"""Django in this process, in front of a cluster with any number of replicas."""

from __future__ import annotations

import logging

import django
from django.conf import settings

from django_pglb.testing import Cluster

DATABASE = "growth"
PRIMARY = "default"


def set_up(cluster: Cluster) -> None:
    """Make this process one of a site on `cluster`, with every setting of the package at its default."""
    aliases = dict(zip([PRIMARY, *(replica.name for replica in cluster.replicas)], cluster.hosts, strict=True))
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["django_pglb"],
        DATABASES={alias: host.settings(DATABASE, CONN_MAX_AGE=None) for alias, host in aliases.items()},
        DATABASE_ROUTERS=["django_pglb.routers.ReplicaRouter"],
        PGLB={PRIMARY: {"REPLICAS": [replica.name for replica in cluster.replicas]}},
        CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": cluster.redis.url}},
        USE_TZ=True,
    )
    django.setup()
    # That replicas go away and come back is what is measured.
    logging.getLogger("django_pglb").addHandler(logging.NullHandler())
