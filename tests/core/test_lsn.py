"""WAL positions and pointers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_pglb.core.lsn import (
    ANYBODY,
    SEVERAL_SYSTEMS,
    UNKNOWN_SYSTEM,
    Pointer,
    covers,
    earlier,
    format_lsn,
    later,
    marks_of,
    normalise,
    parse_lsn,
    renewed,
    seen_lsn,
)

SEGMENT = 16 * 1024 * 1024
SYSTEMS = st.sampled_from([UNKNOWN_SYSTEM, 7, 8, SEVERAL_SYSTEMS])
POINTERS = st.builds(Pointer, st.integers(1, 9), st.integers(0, 2**64 - 1), st.integers(0, 10**9).map(float), SYSTEMS) | st.none()


@given(st.integers(0, 2**64 - 1))
def test_text_round_trips(lsn: int) -> None:
    """A position survives being printed and parsed."""
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "/", "0/", "/0", "G/0", "0/0 ", "0/123456789", "1" * 100, "0/0\n", "-1/0", "0/0/0"])
def test_anything_but_a_position_is_refused(text: str) -> None:
    """Text that PostgreSQL would not print raises ValueError."""
    with pytest.raises(ValueError, match="not a WAL position"):
        parse_lsn(text)


@pytest.mark.parametrize(
    ("lsn", "expected"),
    [
        (5 * SEGMENT + 40, 5 * SEGMENT),
        (5 * SEGMENT + 8192 + 24, 5 * SEGMENT + 8192),
        (5 * SEGMENT + 24, 5 * SEGMENT + 24),
        (5 * SEGMENT + 8192 + 40, 5 * SEGMENT + 8192 + 40),
        (5 * SEGMENT + 8192 + 32, 5 * SEGMENT + 8192 + 32),
        (5 * SEGMENT, 5 * SEGMENT),
    ],
)
def test_a_position_behind_a_page_header_is_rounded_down(lsn: int, expected: int) -> None:
    """Only the positions directly after a header move, to the start of their page."""
    assert normalise(lsn) == expected


@given(st.integers(0, 2**63))
def test_normalising_goes_back_by_a_header_at_most(lsn: int) -> None:
    """Nothing but a header lies between a position and its normal form, and normal forms stay."""
    assert lsn - normalise(lsn) in (0, 24, 40)
    assert normalise(normalise(lsn)) == normalise(lsn)


@given(POINTERS, POINTERS, POINTERS)
def test_merging_pointers_commutes_and_never_goes_back(a: Pointer | None, b: Pointer | None, c: Pointer | None) -> None:
    """The order and the number of merges do not matter, and the result is no earlier than any part."""
    assert later(a, b) == later(b, a)
    assert later(a, later(b, c)) == later(later(a, b), c)
    assert later(a, a) == a
    merged = later(a, b)
    assert all(merged is not None and merged >= part for part in (a, b) if part is not None)


MARKS = marks_of(["replica1", "replica2"])


def test_host_that_is_still_replaying_need_not_go_past_what_was_seen_on_it() -> None:
    """A record that it was in the middle of may have been seen. Any other host must have gone past it, the same one is there."""
    for received in (0x1008, 0x0FF8, None):
        seen = Pointer(1, seen_lsn(MARKS["replica1"], 0x1000, received))
        assert seen.lsn_on(MARKS["replica1"]) == 0x1000
        assert 0x1000 < seen.lsn_on(MARKS["replica2"]) < 0x1008


def test_host_that_has_replayed_what_it_received_was_in_the_middle_of_nothing() -> None:
    """What was seen there is exactly what it has replayed: an idle cluster keeps nobody from any replica."""
    assert seen_lsn(MARKS["replica1"], 0x1000, 0x1000) == 0x1000


def test_position_of_a_write_is_the_same_for_every_host() -> None:
    """Records end at multiples of eight, so a position that was taken on a primary has no mark."""
    assert {Pointer(1, 0x1000).lsn_on(mark) for mark in range(1, 8)} == {0x1000}


@pytest.mark.parametrize("aliases", [["replica1", "replica7"], ["db12", "db21"], [f"r{number}" for number in range(9)]])
def test_hosts_that_would_share_a_mark_have_none(aliases: list[str]) -> None:
    """Each of them must go past what the others showed, and what it showed itself."""
    for alias, mark in marks_of(aliases).items():
        pointer = Pointer(1, seen_lsn(mark, 0x1000, 0x1008))
        exempt = [other for other, its in marks_of(aliases).items() if pointer.lsn_on(its) == 0x1000]
        assert exempt in ([], [alias])
    shared = [mark for mark in marks_of(aliases).values() if mark == ANYBODY]
    assert len(shared) >= 2


def test_typical_names_have_marks_of_their_own() -> None:
    for names in (["replica1", "replica2", "replica3"], ["replica_a", "replica_b"], ["eu", "us"]):
        assert ANYBODY not in marks_of(names).values()
        assert len(set(marks_of(names).values())) == len(names)


def test_what_two_hosts_showed_is_nobodys() -> None:
    """At the same position each may have shown a record that the other one has not."""
    one, other = (Pointer(1, seen_lsn(MARKS[alias], 0x1000, 0x1008)) for alias in ("replica1", "replica2"))
    for merged in (later(one, other), later(other, one)):
        assert merged is not None
        assert {merged.lsn_on(mark) for mark in MARKS.values()} == {0x1007}
    assert later(one, one) == one
    assert later(one, Pointer(1, 0x1000)) == one
    assert later(one, Pointer(1, 0x1008)) == Pointer(1, 0x1008)


def test_pointers_of_two_systems_do_not_compare() -> None:
    """Neither shows the other, none is the earlier one, and what is later than both is of no system."""
    old, new, unknown = Pointer(1, 800, 1.0, 7), Pointer(1, 80, 2.0, 8), Pointer(1, 400, 1.5)
    both = later(old, new)
    assert both is not None
    assert (covers(old, new), covers(new, old), covers(both, both), covers(both, new)) == (False,) * 4
    assert earlier(old, new) is None
    assert both.system == SEVERAL_SYSTEMS
    assert later(both, new) == both
    assert later(old, unknown) == old
    assert later(new, unknown) == unknown._replace(system=8)
    assert covers(old, unknown)


def test_what_was_taken_now_takes_the_place_of_what_is_of_another_system() -> None:
    """And is merged with what is of its own, or may be."""
    old, new, earlier_new, unknown = Pointer(1, 800, 1.0, 7), Pointer(1, 80, 2.0, 8), Pointer(1, 72, 1.0, 8), Pointer(1, 88, 3.0)
    assert renewed(old, new) == new
    assert renewed(later(old, new), new) == new
    assert renewed(new, earlier_new) == new
    assert renewed(new, unknown) == unknown._replace(system=8)
    assert renewed(unknown, new) == new
    assert renewed(None, new) == renewed(new, None) == new
