"""How much of its weight a slow host keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_pglb.core.weight import LEAST_SHARE, share, smoothed

LATENCIES = st.floats(0.0001, 10)


@pytest.mark.parametrize(
    ("latency", "fastest", "kept"),
    [
        pytest.param(0.020, 0.001, 1, id="20 times as slow, and hardly to be felt"),
        pytest.param(0.300, 0.100, 1, id="200 ms slower, and only three times as slow"),
        pytest.param(0.042, 0.001, 0.5, id="twice what is tolerated beside a quick peer"),
        pytest.param(0.500, 0.050, 0.5, id="twice what is tolerated beside a slow peer"),
        pytest.param(10.0, 0.001, LEAST_SHARE, id="never nothing"),
        pytest.param(0.001, 0.001, 1, id="the fastest itself"),
        pytest.param(None, 0.001, 1, id="not known yet"),
        pytest.param(0.5, None, 1, id="no peer"),
    ],
)
def test_share(latency: float | None, fastest: float | None, kept: float) -> None:
    """More than five times and more than 20 ms slower than the fastest costs weight, in proportion."""
    assert share(latency, fastest) == pytest.approx(kept)


@given(LATENCIES, LATENCIES, LATENCIES)
def test_share_falls_with_latency_and_stays_within_its_bounds(one: float, other: float, fastest: float) -> None:
    """Who is slower never keeps more, and nobody loses all or gains anything."""
    slower, quicker = max(one, other), min(one, other)
    assert LEAST_SHARE <= share(slower, fastest) <= share(quicker, fastest) <= 1


@given(LATENCIES, st.floats(0, 1e-6))
def test_share_does_not_jump(latency: float, more: float) -> None:
    """A little slower costs a little weight."""
    assert share(latency, 0.001) - share(latency + more, 0.001) < 1e-3


@given(st.lists(LATENCIES, min_size=1, max_size=20))
def test_smoothed_latency_stays_within_what_was_seen(latencies: list[float]) -> None:
    """And comes close to what is seen again and again."""
    value: float | None = None
    for latency in latencies:
        value = smoothed(value, latency)
        assert min(latencies) * 0.999 <= value <= max(latencies) * 1.001
    for _ in range(40):
        value = smoothed(value, 0.5)
    assert value == pytest.approx(0.5, rel=1e-3)
