"""django_replicated: the one page that an unsafe request redirects to is read from the primary."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# What loads and saves sessions.
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


def configure(settings: dict[str, Any]) -> None:
    """Read from one replica a request, which must have answered; one that has not is left alone for `REPLICATED_DATABASE_DOWNTIME`, 60 s.

    The cache `default` remembers that for all processes. The pin is a cookie that a redirect sets and the next other answer deletes.
    """
    # It has no defaults elsewhere: its documentation has the site import them into its own settings.
    defaults = vars(import_module("django_replicated.settings"))
    settings |= {name: value for name, value in defaults.items() if name.startswith("REPLICATED_")}
    settings["REPLICATED_DATABASE_SLAVES"] = [alias for alias in settings["DATABASES"] if alias != "default"]
    settings["DATABASE_ROUTERS"] = ["django_replicated.router.ReplicationRouter"]
    # Inside the session's, which may write after a GET: while a request is one for replicas, its router refuses every write.
    settings["MIDDLEWARE"].insert(settings["MIDDLEWARE"].index(SESSIONS) + 1, "django_replicated.middleware.ReplicationMiddleware")
