"""Pointers in a Django cache on django-redis: shared by all processes, and set only if greater, atomically."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from django.conf import settings

from ..core.routing_session import UNBOUND
from .any_cache import AnyCachePointers
from .base import Store, StoreError, decode, encode, merge_all, store_key
from .client import open_client
from .debts import Save
from .locality import LOCAL, is_of_one_machine
from .memory import Memory
from .redis import RedisPointers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.routing_session import Bound, Identity
    from ..health.report import StoreReport


class CacheStore(Store):
    """Pointers in the cache `cache` (an alias in `CACHES`), which must be a django-redis one.

    After a failure nobody waits for the store until it answers again and everybody has had the time to bring what they owe.
    Any other cache is used without atomicity, which the system checks allow under `DEBUG` only.
    """

    def __init__(self, *, pointer_seconds: float, cache: str = "default") -> None:
        super().__init__(pointer_seconds=pointer_seconds)
        self.cache_alias = cache
        client = open_client(cache)
        # A cache that is none of django-redis puts it before each key itself.
        prefix = settings.CACHES[cache].get("KEY_PREFIX") if client else ""
        self._prefix = f"{prefix}:" if prefix else ""
        self._pointers = AnyCachePointers(cache) if client is None else RedisPointers(client, cache, prefix=self._prefix)

    def load(self, primary: str, identities: Sequence[Identity]) -> list[Bound]:
        secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        keys = [store_key(primary, identity, str(secret), self._prefix) for identity in identities for secret in secrets]
        values = self._pointers.load(self._memory(primary), keys) if keys else []
        try:
            bounds = [UNBOUND if value is None else decode(value) for value in values]
            return [merge_all(bounds[first : first + len(secrets)]) for first in range(0, len(bounds), len(secrets))]
        except ValueError as error:
            raise StoreError(f"the pointer store (cache {self.cache_alias!r}) holds something that is not a pointer") from error

    def save(self, primary: str, identities: Sequence[Identity], bound: Bound) -> None:
        value, milliseconds = encode(bound), round(self.pointer_seconds * 1000)
        secret = str(settings.SECRET_KEY)
        saves = [Save(store_key(primary, identity, secret, self._prefix), value, milliseconds) for identity in identities]
        if saves:
            self._pointers.save(self._memory(primary), saves)

    def vouch(self, primary: str) -> None:
        self._pointers.vouch(self._memory(primary))

    def look(self, primary: str) -> StoreReport | None:
        report = self._pointers.look(self._memory(primary))
        if report is not None and is_of_one_machine(settings.CACHES[self.cache_alias], settings.DATABASES.get(primary, {})):
            return replace(report, advice=(*report.advice, LOCAL))
        return report

    def close(self) -> None:
        self._pointers.close()

    def _memory(self, primary: str) -> Memory:
        return Memory(primary, self.sticky_seconds, prefix=self._prefix)
