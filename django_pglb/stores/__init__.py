"""Where pointers live between requests: `CacheStore` (Redis, through Django's cache) and `CookieStore` (nowhere but in the browser)."""

from __future__ import annotations

from .base import Store, StoreError
from .cache import CacheStore
from .cookie import CookieStore

__all__ = ["CacheStore", "CookieStore", "Store", "StoreError"]
