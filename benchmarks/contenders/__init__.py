"""Who is compared: ways to use a primary and its replicas from Django, this package among them."""

from __future__ import annotations

from functools import partial

from . import django_replicated, multidb, pglb, pgpool, plain, timed_pin
from .contender import Contender, package

CONTENDERS = (
    Contender("plain Django", plain.configure),
    Contender("django-multidb-router", multidb.configure, package("multidb", "django-multidb-router")),
    Contender("django_replicated", django_replicated.configure, package("django_replicated", "django_replicated")),
    Contender("pgpool-II", pgpool.configure, pgpool.missing, pgpool.Pgpool),
    Contender("two-second pin", timed_pin.configure),
    Contender("django-pglb, read_your_writes", partial(pglb.configure, consistency="read_your_writes")),
    Contender("django-pglb, monotonic", partial(pglb.configure, consistency="monotonic")),
)

__all__ = ["CONTENDERS", "Contender"]
