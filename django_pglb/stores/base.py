"""What a store is: a place where pointers live between requests, keyed by identity."""

from __future__ import annotations

import hmac
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..core.lsn import Pointer
from ..core.routing_session import UNBOUND, Bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..core.routing_session import Identity
    from ..health.report import StoreReport

# Fixed width, so that text order is numeric order and a Lua script needs no numbers (they are doubles there):
# timeline (8 hexadecimal digits), position (16), when it was written and until when the reader is pinned (13 decimal digits of
# milliseconds since the epoch each), system identifier (16 hexadecimal digits; older texts lack it, so that it is unknown).
VALUE_LENGTH = 66
LENGTH_WITHOUT_SYSTEM = 50
_VALUE = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})([0-9]{13})([0-9]{13})([0-9A-F]{16})?")


class StoreError(Exception):
    """The store could not be read or written. Carries the client library's error as its cause, if this call asked it."""


class MemoryLost(StoreError):
    """The store answers, and has lost what it was given, or is new: that it knows nothing of somebody means nothing."""


class Store(ABC):
    """Remembers what binds each identity, for `POINTER_SECONDS`. Safe to share between threads.

    Times in bounds are wall time, since several machines share them.
    """

    binds_by_cookie = False
    """The client carries its own pointer in the signed cookie, whatever `COOKIE` says."""

    sticky_seconds = 30.0
    """The cluster's `STICKY_SECONDS`, set before the first use."""

    def __init__(self, *, pointer_seconds: float) -> None:
        self.pointer_seconds = pointer_seconds

    @abstractmethod
    def load(self, primary: str, identities: Sequence[Identity]) -> list[Bound]:
        """Return what binds each of `identities`, in their order, in one round trip. Raises `StoreError`."""

    @abstractmethod
    def save(self, primary: str, identities: Sequence[Identity], bound: Bound) -> None:
        """Bind every identity by `bound` as well, never moving a pointer back, in one round trip. Raises `StoreError`."""

    def vouch(self, primary: str) -> None:  # noqa: B027 - most have nothing to do
        """Declare that the store has lost nothing, as whoever has just set it up can tell. Raises `StoreError`.

        A store that tells by itself whether it has lost its memory would take a new one for one that has. Others ignore this.
        """

    def look(self, primary: str) -> StoreReport | None:
        """Return how the store is, for those who operate it; None where there is nothing to look at. Changes nothing, and never raises."""
        return None

    def close(self) -> None:  # noqa: B027 - the same
        """Let go of connections and threads. The store is not used after that."""


def encode(bound: Bound) -> str:
    """Return the stored text of `bound`."""
    pointer = bound.pointer or Pointer(0, 0)
    moments = _milliseconds(pointer.written_at) + _milliseconds(bound.pinned_until)
    return f"{pointer.timeline:08X}{pointer.lsn:016X}{moments}{pointer.system:016X}"


def decode(text: str) -> Bound:
    """Return what `text` stands for. Raises `ValueError` for anything but what `encode` returns."""
    match = _VALUE.fullmatch(text) if len(text) in (VALUE_LENGTH, LENGTH_WITHOUT_SYSTEM) else None
    if match is None:
        raise ValueError(f"not a stored pointer: {text[: VALUE_LENGTH + 1]!r}")
    timeline, lsn = int(match[1], 16), int(match[2], 16)
    pointer = Pointer(timeline, lsn, int(match[3]) / 1000, int(match[5] or "0", 16)) if timeline else None
    return Bound(pointer, int(match[4]) / 1000)


def merge_all(bounds: Iterable[Bound]) -> Bound:
    merged = UNBOUND
    for bound in bounds:
        merged = merged.merged(bound)
    return merged


def store_key(primary: str, identity: Identity, secret: str, prefix: str = "") -> str:
    """Return the key of an identity: nobody who reads the store learns a session key, a token or a user id.

    `prefix` is the site's own in a store that it shares with others.
    """
    kind, value = identity
    message = f"{len(primary)}:{primary}{len(kind)}:{kind}{value}".encode()
    digest = hmac.digest(b"django_pglb.store" + secret.encode(), message, "sha256")
    return f"{prefix}pglb:1:{digest[:20].hex()}"


def _milliseconds(seconds: float) -> str:
    return f"{min(max(round(seconds * 1000), 0), 9_999_999_999_999):013d}"
