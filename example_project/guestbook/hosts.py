"""The hosts as the pages show them: what this process's health checker believes, and what the buttons have done."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.conf import settings

from django_pglb.runtime import get_runtime

from ..control import ControlError, ask

NAMES = {"default": "primary"}


class HostView(NamedTuple):
    """One host, ready to be shown."""

    alias: str
    name: str
    state: str
    detail: str
    has_buttons: bool = False
    is_running: bool = True
    is_hindered: bool = False


def name_of(alias: str) -> str:
    """Return what people call the host behind `alias`."""
    return NAMES.get(alias, alias)


def list_hosts() -> list[HostView]:
    """Return the primary and the replicas. Asks no database; the first call starts the health checker of this process."""
    buttons = _ask_buttons()
    return [_view(alias, believed, buttons.get(alias)) for alias, believed in _beliefs().items()]


def _beliefs() -> dict[str, tuple[str, str]]:
    """Return the state and the reason for it, per alias; without load balancing nobody looks."""
    runtime = get_runtime()
    if "default" not in runtime.config.clusters:
        return dict.fromkeys(settings.DATABASES, ("unknown", "load balancing is off"))
    topology = runtime.topology("default")
    return {
        host.alias: (str(host.state), _lag(host.lag_seconds) if host.is_online and not host.is_primary else host.why)
        for host in (topology.primary, *topology.replicas)
    }


def _lag(seconds: float | None) -> str:
    return f"{seconds:.1f} s behind" if seconds else "caught up"


def _view(alias: str, believed: tuple[str, str], button: dict[str, Any] | None) -> HostView:
    state, detail = believed
    if button is None:
        return HostView(alias, name_of(alias), state, detail)
    hindrances = []
    if button["is_paused"]:
        hindrances.append("replay paused")
    if button["delay_seconds"]:
        hindrances.append(f"replay delayed by {button['delay_seconds']} s")
    return HostView(
        alias,
        name_of(alias),
        state,
        ", ".join([detail, *hindrances]) if button["is_running"] else "killed",
        has_buttons=True,
        is_running=button["is_running"],
        is_hindered=bool(hindrances),
    )


def _ask_buttons() -> dict[str, dict[str, Any]]:
    if not settings.GUESTBOOK_CONTROL:
        return {}
    try:
        return ask(settings.GUESTBOOK_CONTROL, "state")
    except ControlError:
        return {}
