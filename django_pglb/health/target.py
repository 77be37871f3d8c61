"""Whom to probe, and how to connect there."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from psycopg import pq

from ..core.lsn import ANYBODY
from ..core.topology import Host

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION_NAME = "django-pglb-checker"

BACKSTOP_SECONDS = 60

# A server that has vanished must not keep a probe's connection, or the server a vanished checker's.
KEEPALIVES = {"keepalives": "1", "keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host to probe. `params` are libpq's keywords and values; they hold the password and are never printed."""

    alias: str
    params: Mapping[str, str] = field(repr=False, hash=False)
    is_primary: bool = False
    weight: float = 1.0
    pooled: bool = False
    is_mirror: bool = False
    mark: int = ANYBODY

    @property
    def address(self) -> str:
        """Host and port, fit to be logged."""
        host = self.params.get("host") or self.params.get("hostaddr") or "local socket"
        return f"{host}:{self.params.get('port') or 5432}"

    @property
    def database(self) -> str | None:
        """What the settings call the database; a server behind a pooler may call it otherwise."""
        return self.params.get("dbname")

    def unknown(self) -> Host:
        """Return this host as it looks before anything is known of it."""
        return Host(
            alias=self.alias,
            is_primary=self.is_primary,
            is_mirror=self.is_mirror,
            weight=self.weight,
            pooled=self.pooled,
            mark=self.mark,
        )

    def probe_params(self, timeout: float) -> dict[str, str]:
        """Return how to connect for probes that may take `timeout` seconds."""
        params = {**KEEPALIVES, **self.params, "application_name": APPLICATION_NAME}
        # Only a backstop: the probe's own deadline rules, which a starved process does not hold against others. psycopg's would.
        params["connect_timeout"] = str(math.ceil(timeout) + BACKSTOP_SECONDS)
        # Poolers refuse or drop startup options. The primary may be behind one, too, and nobody has to say so.
        if not (self.pooled or self.is_primary):
            own = self.params.get("options") or os.environ.get("PGOPTIONS", "")
            params["options"] = f"{own} -c default_transaction_read_only=on -c statement_timeout={math.ceil(timeout * 1000)}".strip()
        return params


def target_from_params(
    alias: str,
    params: Mapping[str, object],
    *,
    is_primary: bool = False,
    weight: float = 1.0,
    pooled: bool = False,
    is_mirror: bool = False,
    mark: int = ANYBODY,
) -> Target:
    """Return a target. Of `params`, whatever a driver was to be given, only what libpq understands is kept."""
    known = {key: str(value) for key, value in params.items() if value is not None and key in _libpq_keywords()}
    return Target(alias=alias, params=known, is_primary=is_primary, weight=weight, pooled=pooled, is_mirror=is_mirror, mark=mark)


@cache
def _libpq_keywords() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
