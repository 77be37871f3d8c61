"""Django with one database: everything on the primary."""

from __future__ import annotations

from typing import Any


def configure(settings: dict[str, Any]) -> None:
    """Forget the replicas."""
    settings["DATABASES"] = {"default": settings["DATABASES"]["default"]}
