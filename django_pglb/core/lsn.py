"""WAL positions (LSN) and the pointers made of them.

A position is handled as an integer; its text forms are PostgreSQL's own `X/Y` (https://www.postgresql.org/docs/current/datatype-pg-lsn.html).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# PostgreSQL's own bounds: 64 bits, written as two halves of at most eight hexadecimal digits.
_LSN_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_MAX_LSN_TEXT = 17

# sizeof(XLogPageHeaderData) and sizeof(XLogLongPageHeaderData), access/xlog_internal.h; the long one opens each segment.
PAGE_HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 40

# MAXIMUM_ALIGNOF - 1.
LOW_BITS = 7
# The mark of no host in particular: everybody must go past the position. The highest one, so that it wins as text, too.
ANYBODY = 7

DEFAULT_BLOCK_BYTES = 8192
DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024


# Of a pointer whose server would not say, and of one from before pointers said so. It is compared by its position with any other.
UNKNOWN_SYSTEM = 0
# Of what is bound by pointers of several systems: of no server's.
SEVERAL_SYSTEMS = 2**64 - 1


class Pointer(NamedTuple):
    """A WAL position on a timeline of a system, which a reader must not read behind.

    Pointers of one system compare by timeline, then position. `system` is what `pg_control_system()` calls the system identifier: a cluster
    that was made anew, as by `pg_upgrade` or from a dump, has another one, and positions that say nothing of those before.
    `written_at` is when the position was taken, in seconds of the clock that the caller uses for `now`.
    It only helps to guess which replica has got there and proves nothing.
    """

    timeline: int
    lsn: int
    written_at: float = 0.0
    system: int = UNKNOWN_SYSTEM

    @property
    def exact_lsn(self) -> int:
        """The position itself, which one host at least need not go past."""
        return self.lsn & ~LOW_BITS

    def was_seen_on(self, mark: int) -> bool:
        """Say whether it is known to have been seen on the host with this mark: see `seen_lsn`."""
        return self.lsn & LOW_BITS == mark != ANYBODY

    def lsn_on(self, mark: int) -> int:
        """Return the position that the host with this mark must have replayed."""
        return self.exact_lsn if self.was_seen_on(mark) else self.lsn


def seen_lsn(mark: int, replayed: int, received: int | None) -> int:
    """Return the upper bound of what a read saw on the replica with this mark, from positions asked for after it.

    A standby counts a record as replayed only when it is done with it, and a commit is visible a little earlier. So unless it has replayed
    exactly what it received, a read may have seen one record beyond `replayed`, and no other host will do that has not gone past this
    position. The host itself will: it need not go past it, or everybody would leave a replica that stalls. Records begin and end at
    multiples of eight, so the low bits of the position are free to say which host that is.
    """
    return replayed if received == replayed else replayed | mark


def marks_of(aliases: Iterable[str]) -> dict[str, int]:
    """Return the mark of each of a cluster's replicas. Those that would share one are `ANYBODY`, whom nobody need not go past.

    A name has the same mark in every process that knows the same replicas, else `ANYBODY` in some.
    """
    marks = {alias: 1 + sum(alias.encode()) % (LOW_BITS - 1) for alias in aliases}
    taken = Counter(marks.values())
    return {alias: mark if taken[mark] == 1 else ANYBODY for alias, mark in marks.items()}


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


def are_comparable(one: Pointer, other: Pointer) -> bool:
    """Say whether two pointers may be of one system."""
    return one.system == other.system != SEVERAL_SYSTEMS or UNKNOWN_SYSTEM in (one.system, other.system)


def covers(shown: Pointer | None, wanted: Pointer | None) -> bool:
    """Say whether what shows `shown` at least shows `wanted`, too. A pointer of another timeline or system is covered by nothing."""
    if wanted is None or shown is None:
        return wanted is None
    # Beyond the position itself only what is bound by the very same one is known to go; see `seen_lsn`.
    if shown.timeline != wanted.timeline or not are_comparable(shown, wanted):
        return False
    return shown.exact_lsn >= wanted.lsn or shown.lsn == wanted.lsn


def earlier(one: Pointer | None, other: Pointer | None) -> Pointer | None:
    """Return the earlier of two pointers; None, no pointer, is before all, and so is what is before two of different systems."""
    return min(one, other) if one is not None and other is not None and are_comparable(one, other) else None


def later(one: Pointer | None, other: Pointer | None) -> Pointer | None:
    """Return the later of two pointers; None means no pointer. What is later than two of different systems is of no system."""
    if one is None or other is None:
        return one if other is None else other
    latest = max(one, other)
    if one.system != other.system:
        latest = latest._replace(system=_system_of_both(one.system, other.system))
    if one.timeline == other.timeline and one.exact_lsn == other.exact_lsn and 0 != one.lsn & LOW_BITS != other.lsn & LOW_BITS != 0:
        # Seen on two hosts: each may have shown a record that the other one has not.
        return latest._replace(lsn=latest.lsn | ANYBODY)
    return latest


def _system_of_both(one: int, other: int) -> int:
    if UNKNOWN_SYSTEM in (one, other):
        return one or other
    return one if one == other else SEVERAL_SYSTEMS


def renewed(before: Pointer | None, now: Pointer | None) -> Pointer | None:
    """Return what binds whoever was bound by `before` and is by `now`, which was taken on the server that is the primary now.

    Whatever the one has of another system is dropped: a position of now covers all that has come over from there.
    """
    if before is None or now is None or now.system in (before.system, UNKNOWN_SYSTEM):
        return later(before, now)
    return now
