"""The models of the journey that this process is on."""

from __future__ import annotations

from ..settings import journey

if hasattr(journey, "models"):
    journey.models()
