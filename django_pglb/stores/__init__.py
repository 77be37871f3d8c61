"""Where pointers live between requests: `CacheStore` (Redis, through Django's cache) and `CookieStore` (nowhere but in the browser)."""

from __future__ import annotations

from .base import MemoryLost, Store, StoreError
from .cache import CacheStore
from .cookie import CookieStore
from .opening import look_at_store, open_store
from .trouble import is_trouble

__all__ = ["CacheStore", "CookieStore", "MemoryLost", "Store", "StoreError", "is_trouble", "look_at_store", "open_store"]
