"""The router that everybody writes first: reads to a replica, writes to the primary."""

from __future__ import annotations

import itertools
from typing import Any


class NaiveRouter:
    """Takes the replicas in turn, so that what it gets wrong it gets wrong each time."""

    def __init__(self) -> None:
        self._next = itertools.cycle(["replica1", "replica2"])

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return next(self._next)

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"
