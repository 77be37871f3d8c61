"""The router that docs/working-with-other-packages.md has for django-cacheops."""

from __future__ import annotations

from typing import Any

from cacheops.conf import model_profile


class CachedModelsOnPrimary:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "default" if hasattr(model._meta, "label_lower") and model_profile(model) else None
