"""One way to use the cluster: what a site's settings become, and what has to be there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from django_pglb.testing import Cluster

from .pgpool import Pgpool


def nothing() -> str | None:
    """For whoever needs only Django and this package."""
    return None


class Contender(NamedTuple):
    """One way to use the cluster."""

    name: str
    """As it is printed."""
    configure: Callable[[dict[str, Any]], None]
    """Changes, in place, the settings of a site that knows `default`, `replica1` and `replica2` and uses only the first.

    Of those it needs INSTALLED_APPS, MIDDLEWARE (lists), DATABASES and CACHES; whatever it sets is a setting too.
    """
    missing: Callable[[], str | None] = nothing
    """Says what is not installed, None if nothing is missing."""
    proxy: Callable[[Cluster], Pgpool] | None = None
    """What must run between Django and the hosts while the site does; `configure` finds its port in `PORT_VARIABLE`."""


def package(module: str, distribution: str) -> Callable[[], str | None]:
    """Return what says that the package is not installed, if it is not."""
    return lambda: None if find_spec(module) else f"the package {distribution} is not installed"
