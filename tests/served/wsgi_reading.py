"""The served site, which reads while it is being loaded: under `--preload` the master's checker then runs before the fork."""

from __future__ import annotations

from django.db import connections

from django_pglb import routing_session, runtime
from django_pglb.testing import wait_until

from .wsgi import application

__all__ = ["application"]


def _is_served_by_replica() -> bool:
    from .models import Register

    with routing_session() as routing:
        Register.objects.exists()
    return {decision.alias for decision in routing.decisions()} <= {"replica1", "replica2"}


wait_until(_is_served_by_replica, timeout=20, what="a replica to answer the master")
wait_until(lambda: len(runtime.get_runtime().topology("default").online) == 2, timeout=20, what="the master to see both replicas")

# An application's connections must not be shared with the processes that are forked from it.
connections.close_all()
