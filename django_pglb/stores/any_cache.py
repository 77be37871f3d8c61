"""Pointers in a cache that is not on django-redis: neither atomic nor shared, for a developer's machine only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.cache import caches

from .base import StoreError, decode, encode
from .trouble import is_trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .debts import Save
    from .memory import Memory


class AnyCachePointers:
    """Reads and writes through Django's cache `alias`. Such a cache lives with its process, so nothing is owed to it or lost by it."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def load(self, memory: Memory, keys: Sequence[str]) -> list[str | None]:
        """Return what is there. Raises `StoreError`."""
        try:
            found = caches[self._alias].get_many(keys)
        except Exception as error:
            if not is_trouble(error):
                raise
            raise self._silent(error) from error
        return [found.get(key) for key in keys]

    def save(self, memory: Memory, saves: Sequence[Save]) -> None:
        """Merge each of `saves` into what is there. Raises `StoreError`."""
        try:
            for save in saves:
                self._save(save)
        except Exception as error:
            if not is_trouble(error):
                raise
            raise self._silent(error) from error

    def vouch(self, memory: Memory) -> None:
        """Do nothing."""

    def look(self, memory: Memory) -> None:
        """Find nothing to report."""

    def close(self) -> None:
        """Leave the cache to Django."""

    def _save(self, save: Save) -> None:
        cache = caches[self._alias]
        old = cache.get(save.key)
        new = decode(save.value) if old is None else decode(old).renewed(decode(save.value))
        cache.set(save.key, encode(new), save.milliseconds / 1000)

    def _silent(self, error: Exception) -> StoreError:
        return StoreError(f"the pointer store (cache {self._alias!r}) does not answer: {type(error).__name__}")
