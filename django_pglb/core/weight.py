"""A replica that is merely slow loses weight before it loses its place.

Its probes tell: smoothed, and compared with the fastest replica's, so that a slow network between here and all of them,
or a starved process, slows nobody down.
"""

from __future__ import annotations

# Replicas in other zones are a few milliseconds away, and several times as far as the nearest: that is no reason to avoid them.
TOLERATED_RATIO = 5.0
TOLERATED_EXCESS_SECONDS = 0.020

# Enough reads go on to a slow replica that its weight is no hidden way to take it out.
LEAST_SHARE = 1 / 20

# The latest answer counts this much: one that was slow by chance changes little, five in a row nearly all.
NEWEST_SHARE = 0.3


def smoothed(before: float | None, newest: float) -> float:
    """Return the latency to go by after an answer that took `newest` seconds."""
    return newest if before is None else before + NEWEST_SHARE * (newest - before)


def share(latency: float | None, fastest: float | None) -> float:
    """Return how much of its weight a host keeps whose answers take `latency` seconds, while its fastest peer's take `fastest`."""
    if latency is None or fastest is None:
        return 1.0
    tolerated = max(fastest * TOLERATED_RATIO, fastest + TOLERATED_EXCESS_SECONDS)
    return 1.0 if latency <= tolerated else max(LEAST_SHARE, tolerated / latency)
