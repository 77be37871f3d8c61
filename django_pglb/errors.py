"""What the package raises besides what plain Django would, and what it warns of.

django.db.OperationalError
 └─ PrimaryProtected
RuntimeError
 └─ StaleSave
RuntimeWarning
 └─ StaleSaveWarning
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import OperationalError

if TYPE_CHECKING:
    from django.db.models import Model


class PrimaryProtected(OperationalError):
    """No replica is usable, and this process reads from the primary as much as `PRIMARY_FALLBACK_LIMIT` allows.

    Answer it with 503 Service Unavailable: a primary that drowns serves nobody.
    """


class StaleSave(RuntimeError):
    """An instance that was loaded from a replica was to be saved, with `GUARD_STALE_SAVES = "raise"`. Nothing was sent to the primary.

    No database error: what catches those, to retry or to tell the user, must not swallow a mistake in the code.
    """

    def __init__(self, message: str, instance: Model) -> None:
        super().__init__(message)
        self.instance = instance


class StaleSaveWarning(RuntimeWarning):
    """The same with `"warn"`: the instance is saved."""
