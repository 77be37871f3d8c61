"""Whether two aliases of a cluster answer a query alike: with the same user, the same time zone, and the same settings of the session.

Where they do not, what a page shows depends on the host that happened to serve it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .problem import CheckId, Problem, setting_path, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# How to connect, and not what is answered then: these may differ. `sslmode` has a check of its own; secrets are never shown.
OF_CONNECTING = frozenset(
    {
        *("host", "hostaddr", "port", "service", "target_session_attrs", "load_balance_hosts", "password", "passfile", "require_auth"),
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "requirepeer"),
        *("application_name", "fallback_application_name", "channel_binding", "krbsrvname"),
        *("pool", "prepare_threshold", "server_side_binding", "options"),
    }
)
OF_TLS = ("ssl", "gss")
# Settings of a session that change how long something takes, or what is logged, and never what is answered.
OF_WORK = re.compile(
    r"(default_transaction_read_only|application_name|work_mem|.*_timeout|.*_cost|.*_mem|.*_buffers|jit.*|enable_.*|log_.*|auto_explain\..*"
    r"|max_parallel.*|parallel_.*|effective_.*|synchronous_commit|hot_standby_feedback|tcp_.*|client_min_messages|track_.*)"
)
STARTUP_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|\S)*)")

HINT = "Set the same on all aliases of the cluster, or silence this check if it is meant: {} depends on the host that happens to serve."


def find_differences(
    alias: str, replica: Mapping[str, Any], primary_alias: str, primary: Mapping[str, Any], *, pooled: bool
) -> Iterator[Problem]:
    """Find what makes a replica answer otherwise than its primary. With `pooled` the pooler has names and options of its own."""

    def problem(check: CheckId, keys: tuple[str, ...], name: str, ours: object, theirs: object, what: str) -> Problem:
        path = setting_path("DATABASES", alias, *keys)
        return Problem(check, f"{path}: {name}{_told(ours)}, but {_told(theirs)} on {shown(primary_alias)}.", HINT.format(what))

    zones = replica.get("TIME_ZONE") or None, primary.get("TIME_ZONE") or None
    # Where nothing is set, Django takes UTC.
    if (zones[0] or "UTC") != (zones[1] or "UTC"):
        yield problem(CheckId.OTHER_TIME_ZONE, ("TIME_ZONE",), "", *zones, "the day that a moment falls on")
    users = replica.get("USER") or None, primary.get("USER") or None
    if all(users) and users[0] != users[1] and not pooled:
        yield problem(CheckId.OTHER_USER, ("USER",), "", *users, "what may be read, by grants, policies and search_path,")
    options = replica.get("OPTIONS") or {}, primary.get("OPTIONS") or {}
    for name in _differing(*(_deciding_options(each) for each in options)):
        yield problem(CheckId.OTHER_OPTIONS, ("OPTIONS", name), "", options[0].get(name), options[1].get(name), "what a query answers")
    settings = _session_settings(options[0]), _session_settings(options[1])
    for name in [] if pooled else _differing(*settings):
        values = settings[0].get(name), settings[1].get(name)
        yield problem(CheckId.OTHER_OPTIONS, ("OPTIONS", "options"), f"{name} ", *values, "what a query answers")


def _told(value: object) -> str:
    return "not set" if value is None else f"is {shown(value)}"


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]


def _deciding_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in OF_CONNECTING and not name.startswith(OF_TLS)}


def _session_settings(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that the startup parameter `options` makes, but for those that decide nothing."""
    found = {name.replace("-", "_").lower(): value for name, value in STARTUP_OPTION.findall(str(options.get("options") or ""))}
    return {name: value for name, value in found.items() if not OF_WORK.fullmatch(name)}
