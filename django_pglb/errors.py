"""What the package raises besides what plain Django would.

django.db.OperationalError
 └─ PrimaryProtected
"""

from __future__ import annotations

from django.db import OperationalError


class PrimaryProtected(OperationalError):
    """No replica is usable, and this process reads from the primary as much as `PRIMARY_FALLBACK_LIMIT` allows.

    Answer it with 503 Service Unavailable: a primary that drowns serves nobody.
    """
