"""Who answered a page and why, in words for visitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django_pglb import current_decisions
from django_pglb.core.decision import Reason

from .hosts import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each reason means to the person in front of the page.
MEANINGS: Mapping[Reason, str] = {
    Reason.REPLICA: "It has everything that you wrote, if you wrote anything.",
    Reason.STALE_ALLOWED: "This page said that older data is fine.",
    Reason.OUTSIDE_SESSION: "This ran outside a request.",
    Reason.FORCED_PRIMARY: "This page asked for the primary.",
    Reason.TRANSACTION: "A transaction is open there.",
    Reason.INSTANCE: "It belongs to something that was read there.",
    Reason.WROTE: "This request had just written.",
    Reason.UNSAFE_METHOD: "The request may change something.",
    Reason.BEHIND: "No replica has your last write yet, and you must not miss it.",
    Reason.NO_REPLICA: "No replica is online.",
    Reason.STORE_ERROR: "Redis could not tell what you wrote.",
    Reason.WRITE: "Only the primary can be written to.",
    Reason.FAILOVER: "The replica that was asked first failed.",
    Reason.EXPLICIT: "The code named it.",
    Reason.SESSION_STATE: "It has something in its database session that no replica has.",
}


class Answer(NamedTuple):
    """One line of the panel: a host, the reason and how many statements."""

    alias: str
    host: str
    reason: str
    meaning: str
    queries: int


def answers_so_far() -> list[Answer]:
    """Return who has answered this request up to now. Call it after the page's last query."""
    return [Answer(alias, name_of(alias), str(reason), MEANINGS[reason], count) for alias, reason, count in current_decisions()]
