"""Pointers in a Django cache on django-redis: shared by all processes, and set only if greater, atomically."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches

from ..core.routing_session import Bound
from .base import Store, StoreError, decode, encode, merge_all, store_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.routing_session import Identity

log = logging.getLogger("django_pglb.store")

# A writer a millisecond for ten seconds; 200 bytes each.
MOST_OWED = 10_000

# Keeps the later pointer and the later pin of the two values, by text order of their fixed-width halves, and renews the key's life.
# One key per call: Redis Cluster runs a script only where all its keys live.
SET_IF_GREATER = """
local new = ARGV[1]
local old = redis.call('GET', KEYS[1])
if old and #old == #new then
  local pointer, pin = string.sub(new, 1, 37), string.sub(new, 38)
  if string.sub(old, 1, 24) > string.sub(new, 1, 24) then pointer = string.sub(old, 1, 37) end
  if string.sub(old, 38) > pin then pin = string.sub(old, 38) end
  new = pointer .. pin
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return new
"""


class CacheStore(Store):
    """Pointers in the cache `cache` (an alias in `CACHES`), which must be a django-redis one.

    Loading and saving take one pipeline each, whatever the number of identities. EVAL instead of EVALSHA and single keys instead of MGET,
    because those are what Redis Cluster accepts in a pipeline.
    Any other cache is used without atomicity, which the system checks allow under `DEBUG` only.
    """

    def __init__(self, *, pointer_seconds: float, cache: str = "default") -> None:
        super().__init__(pointer_seconds=pointer_seconds)
        self.cache_alias = cache
        self._owed: dict[str, _Save] = {}
        self._owed_lock = threading.Lock()  # protects the step from looking at what is owed to changing it

    def load(self, primary: str, identities: Sequence[Identity]) -> Bound:
        secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        keys = [store_key(primary, identity, str(secret)) for identity in identities for secret in secrets]
        values = self._run(_Load(keys))
        try:
            return merge_all(_decoded(value) for value in values if value is not None)
        except ValueError as error:
            raise StoreError(f"the pointer store (cache {self.cache_alias!r}) holds something that is not a pointer") from error

    def save(self, primary: str, identities: Sequence[Identity], bound: Bound) -> None:
        keys = [store_key(primary, identity, str(settings.SECRET_KEY)) for identity in identities]
        self._run(_Save(keys, encode(bound), round(self.pointer_seconds * 1000)))

    def _run(self, operation: _Load | _Save) -> list[Any]:
        if not operation.keys:
            return []
        cache = caches[self.cache_alias]
        get_client = getattr(getattr(cache, "client", None), "get_client", None)
        owed = self._owed.copy() if get_client is not None else {}
        try:
            if get_client is None:
                return operation.on_any_cache(cache)
            pipeline = get_client(write=True).pipeline(transaction=False)
            for save in owed.values():
                save.on_redis(pipeline)
            operation.on_redis(pipeline)
            answers = list(pipeline.execute(raise_on_error=False))
            self._settle(owed, answers)
            return _without_errors(answers[len(owed) :])
        except Exception as error:
            # Any client error means the same to a reader: the store cannot tell. The cause says which.
            self._owe(operation)
            raise StoreError(f"the pointer store (cache {self.cache_alias!r}) does not answer: {type(error).__name__}") from error

    def _owe(self, operation: _Load | _Save) -> None:
        """Keep a save that was not acknowledged, to offer it again with whatever is asked of the store next."""
        if not isinstance(operation, _Save):
            return
        with self._owed_lock:
            for key in operation.keys:
                if len(self._owed) >= MOST_OWED and key not in self._owed:
                    log.error("More than %d saves are owed to cache %r: the oldest is given up.", MOST_OWED, self.cache_alias)
                    del self._owed[next(iter(self._owed))]
                owed = self._owed.get(key)
                value = operation.value if owed is None else encode(decode(owed.value).merged(decode(operation.value)))
                self._owed[key] = _Save([key], value, operation.milliseconds)

    def _settle(self, owed: dict[str, _Save], answers: list[Any]) -> None:
        """Forget what the store has acknowledged now, unless more was owed under the same key meanwhile."""
        with self._owed_lock:
            for (key, save), answer in zip(owed.items(), answers, strict=False):
                if not isinstance(answer, Exception) and self._owed.get(key) is save:
                    del self._owed[key]


class _Load:
    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    def on_redis(self, pipeline: Any) -> None:
        for key in self.keys:
            pipeline.get(key)

    def on_any_cache(self, cache: Any) -> list[Any]:
        return list(cache.get_many(self.keys).values())


class _Save:
    def __init__(self, keys: list[str], value: str, milliseconds: int) -> None:
        self.keys, self.value, self.milliseconds = keys, value, milliseconds

    def on_redis(self, pipeline: Any) -> None:
        for key in self.keys:
            # Not pipeline.eval(): redis-py blocks that name on a cluster, where the command itself works.
            pipeline.execute_command("EVAL", SET_IF_GREATER, 1, key, self.value, self.milliseconds)

    def on_any_cache(self, cache: Any) -> list[Any]:
        for key in self.keys:
            old = cache.get(key)
            new = decode(self.value) if old is None else decode(self.value).merged(_decoded(old))
            cache.set(key, encode(new), self.milliseconds / 1000)
        return []


def _without_errors(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _decoded(value: bytes | str) -> Bound:
    return decode(value.decode("ascii", "replace") if isinstance(value, bytes) else value)
