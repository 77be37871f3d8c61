"""Whom a request acts for while it is handled: that anybody puts a user on it is noticed at the next read, at no cost to other requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .routing_session import Identity

FOUND = "_wrapped"
"""Where Django's lazy objects keep what they turned out to be."""

NOT_LAZY: Mapping[str, object] = {FOUND: None}


class Asker:
    """Who was on a request at a moment: its attribute `user`, and what that was if it is lazy. The attributes are live dictionaries.

    Whether it still holds is asked with every read, so `placement.held_lease` has the rule once more, without a call.
    """

    __slots__ = ("attributes", "found", "identity", "lazy", "user")

    def __init__(self, attributes: Mapping[str, object], user: object = None, lazy: Mapping[str, object] = NOT_LAZY) -> None:
        self.attributes = attributes
        self.user = user
        self.lazy = lazy
        self.found = lazy[FOUND]
        self.identity: Identity | None = None
        """By what pointers are kept for the user; None as long as nobody is known to be there."""

    def has_changed(self) -> bool:
        """Say whether somebody else is there now, or a lazy user has been found."""
        return self.attributes.get("user") is not self.user or self.lazy[FOUND] is not self.found


NO_REQUEST = Asker({})
"""Of a unit of work that is no request: whom it acts for is said."""

BEING_FOUND = Asker({"user": object()})
"""Of a read that looks for whoever is on the request: it does not hold for any other read."""
