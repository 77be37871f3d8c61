"""What each process of the measurement is told by its environment: who is measured, on which servers, and how thoroughly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from .contenders import CONTENDERS, Contender

CONTENDER, SERVERS, IS_SHORT = "COSTS_CONTENDER", "COSTS_SERVERS", "COSTS_IS_SHORT"
ROOT = Path(__file__).parents[2]


class Servers(NamedTuple):
    """Where the servers listen, and where they log. Keyed by the site's aliases."""

    database: str
    ports: dict[str, int]
    logs: dict[str, str]
    redis: str
    application: str = "site"
    """What the site's connections call themselves in the logs."""


def contender() -> Contender:
    return CONTENDERS[os.environ[CONTENDER]]


def servers() -> Servers:
    return Servers(**json.loads(os.environ[SERVERS]))


def is_short() -> bool:
    return IS_SHORT in os.environ


def environment(name: str, servers: Servers, *, is_short: bool) -> dict[str, str]:
    """Return the environment of a process that measures the contender `name`."""
    own = {
        CONTENDER: name,
        SERVERS: json.dumps(servers._asdict()),
        "DJANGO_SETTINGS_MODULE": "benchmarks.costs.settings",
        # Whatever else is installed where this runs: the micro cases name the plugin that they need.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    return {**os.environ, **own, **({IS_SHORT: "1"} if is_short else {})}
