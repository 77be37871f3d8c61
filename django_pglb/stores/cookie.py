"""No store at all: each browser carries its own pointer in the signed cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.routing_session import UNBOUND, Bound
from .base import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.routing_session import Identity


class CookieStore(Store):
    """Needs no server, and binds one browser only: a user's other devices, and API clients without cookies, are not bound."""

    binds_by_cookie = True

    def load(self, primary: str, identities: Sequence[Identity]) -> list[Bound]:
        return [UNBOUND] * len(identities)

    def save(self, primary: str, identities: Sequence[Identity], bound: Bound) -> None:
        """Do nothing: the response's cookie is the save."""
