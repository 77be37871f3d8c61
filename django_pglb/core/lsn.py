"""WAL positions (LSN) and the pointers made of them.

A position is handled as an integer; its text forms are PostgreSQL's own `X/Y` (https://www.postgresql.org/docs/current/datatype-pg-lsn.html).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# PostgreSQL's own bounds: 64 bits, written as two halves of at most eight hexadecimal digits.
_LSN_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_MAX_LSN_TEXT = 17

# sizeof(XLogPageHeaderData) and sizeof(XLogLongPageHeaderData), access/xlog_internal.h; the long one opens each segment.
PAGE_HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 40

# MAXIMUM_ALIGNOF - 1.
LOW_BITS = 7

DEFAULT_BLOCK_BYTES = 8192
DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024


class Pointer(NamedTuple):
    """A WAL position on a timeline, which a reader must not read behind.

    Pointers compare by timeline, then position, so `max()` merges them.
    `written_at` is when the position was taken, in seconds of the clock that the caller uses for `now`.
    It only helps to guess which replica has got there and proves nothing.
    """

    timeline: int
    lsn: int
    written_at: float = 0.0

    def lsn_on(self, alias: str) -> int:
        """Return the position that the host `alias` must have replayed: see `seen_lsn`."""
        return self.lsn & ~LOW_BITS if self.lsn & LOW_BITS == _mark(alias) else self.lsn


def seen_lsn(alias: str, replayed: int, received: int | None) -> int:
    """Return the upper bound of what a read on the replica `alias` saw, from positions asked for after it.

    A standby counts a record as replayed only when it is done with it, and a commit is visible a little earlier. So while it has more to
    replay, a read may have seen one record beyond `replayed`, and no other host will do that has not gone past this position. The host
    itself will: it need not go past it, or everybody would leave a replica that stalls. Records begin and end at multiples of eight,
    so the low bits of the position are free to say which host that is.
    """
    is_replaying = received is not None and received > replayed
    return replayed | _mark(alias) if is_replaying else replayed


def _mark(alias: str) -> int:
    # The same in every process, and different for names that are counted through. Aliases that share a mark only lose the exactness above.
    return 1 + sum(alias.encode()) % LOW_BITS


def parse_lsn(text: str) -> int:
    """Return the position that `text` (`X/Y`) names. Raises `ValueError` for anything else."""
    match = _LSN_TEXT.fullmatch(text) if len(text) <= _MAX_LSN_TEXT else None
    if match is None:
        raise ValueError(f"not a WAL position: {text[: _MAX_LSN_TEXT + 1]!r}")
    return (int(match[1], 16) << 32) | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """Return the `X/Y` text of a position, as PostgreSQL prints it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def normalise(lsn: int, *, block_bytes: int = DEFAULT_BLOCK_BYTES, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> int:
    """Return the position up to which WAL has really been written when the insert position is `lsn`.

    Directly after a page header no record has been written on that page, so the replicas of an idle primary
    stop at the page's start until something else is written (up to 20 s). No record can end there, so rounding down
    to the page's start loses nothing.
    """
    if lsn % segment_bytes == SEGMENT_HEADER_BYTES:
        return lsn - SEGMENT_HEADER_BYTES
    if lsn % block_bytes == PAGE_HEADER_BYTES and lsn % segment_bytes != PAGE_HEADER_BYTES:
        return lsn - PAGE_HEADER_BYTES
    return lsn


def later(one: Pointer | None, other: Pointer | None) -> Pointer | None:
    """Return the later of two pointers; None means no pointer."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)
