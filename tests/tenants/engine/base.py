"""An engine whose `DatabaseWrapper` a test puts here, as `ENGINE` names a module."""

from __future__ import annotations

from typing import Any

DatabaseWrapper: Any = None
