"""Whether a Redis still holds what it was given: a key without expiry says so, which nothing but a loss of memory removes.

1. No key: the store is new, was flushed, or has restarted empty. Who finds that says so in the store (`lost`) and opens a window of
   `STICKY_SECONDS`, by Redis' own clock. Only a script that sees both keys does this, so processes cannot undo each other's work.
2. `lost`: whoever reads asks the script again. While the window is open nobody can be told what binds them; after it every replica in
   the rotation has what was written before the loss, and the script says `well`.
3. `well`: what the normal path reads, behind the pointers and in the same message: a loss between the two is seen.

Saving a pointer touches none of this, so it cannot make a store look as if it remembered.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings

from .peers import key_of_site

if TYPE_CHECKING:
    Command = tuple[str | int, ...]

WELL = "well"

# What every key of ours begins with, after the site's own prefix.
KEYS = "pglb:1:"
# The braces put all of them into one slot of a Redis Cluster.
_SLOT = KEYS + "{memory}"

# The keys: the window, then the memory under the current secret and under former ones. A secret that was rotated without a fallback
# has lost every pointer, and looks it.
_SETTLE = """
local memory = redis.call('GET', KEYS[2])
if not memory then
  for index = 3, #KEYS do
    if redis.call('GET', KEYS[index]) == 'well' then memory = 'well' end
  end
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  memory = 'well'
end
if memory == 'well' then
  redis.call('SET', KEYS[2], 'well')
elseif not memory then
  redis.call('SET', KEYS[1], 'open', 'PX', ARGV[1])
  redis.call('SET', KEYS[2], 'lost')
end
return memory or 'lost'
"""
_LOSE = """
redis.call('SET', KEYS[1], 'open', 'PX', ARGV[1])
redis.call('SET', KEYS[2], 'lost')
return 'lost'
"""


class Memory:
    """The commands that concern the memory of one cluster's pointers. They run on one key, or on keys of one hash slot."""

    def __init__(self, primary: str, sticky_seconds: float, *, prefix: str = "") -> None:
        self._primary = primary
        self._prefix = prefix
        self._milliseconds = round(sticky_seconds * 1000)

    @property
    def ask(self) -> Command:
        """The command whose answer is `WELL` if the store remembers."""
        return "GET", self.key

    @property
    def settle(self) -> Command:
        """The command that notes a loss, or its end; its answer is `WELL` if the store can be believed."""
        former = [self._key(str(secret)) for secret in settings.SECRET_KEY_FALLBACKS]
        return "EVAL", _SETTLE, 2 + len(former), self._window, self.key, *former, self._milliseconds

    @property
    def lose(self) -> Command:
        """The command that declares a loss."""
        return "EVAL", _LOSE, 2, self._window, self.key, self._milliseconds

    @property
    def vouch(self) -> Command:
        """The command that declares that nothing was lost."""
        return "SET", self.key, WELL

    @property
    def key(self) -> str:
        return self._key(str(settings.SECRET_KEY))

    @property
    def peers(self) -> str:
        """The key under which the processes of this site say which secrets they have."""
        return f"{self._prefix}{_SLOT}:{key_of_site(self._primary)}:peers"

    @property
    def nobodys(self) -> str:
        """A key that holds nothing, to try what may be done."""
        return f"{self.key}:tried"

    @property
    def _window(self) -> str:
        return f"{self.key}:window"

    def _key(self, secret: str) -> str:
        return _memory_key(self._primary, secret, self._prefix)


def probe(prefix: str) -> Command:
    """Return what a store answers that is well."""
    # A script, as the site needs them. A key, as a cluster does.
    return "EVAL", "return redis.call('GET', KEYS[1])", 1, prefix + _SLOT


@lru_cache(maxsize=64)
def _memory_key(primary: str, secret: str, prefix: str) -> str:
    # Other sites in the same Redis have secrets, or prefixes, and losses of their own.
    digest = hmac.digest(b"django_pglb.memory" + secret.encode(), primary.encode(), "sha256")
    return f"{prefix}{_SLOT}:{digest[:20].hex()}"
