"""Whether all processes of a site have one `SECRET_KEY`: with another one a process reads keys that nobody writes.

Each process says now and then, in the message of a load or a save, which keys it has and knows, by their fingerprints; what others have
said is read with the pointers. Who finds a fingerprint that it does not know, of a process that does not know its own either, says so once.
A key that is being changed by way of `SECRET_KEY_FALLBACKS` is known to one side.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

if TYPE_CHECKING:
    from .memory import Command, Memory

log = logging.getLogger("django_pglb.store")

SECONDS_BETWEEN = 60
# What others say is read so often, not with each load: it has no hurry, and would cost a page as much as a pointer does.
SECONDS_BETWEEN_LOOKS = 2.0
# Three times as long, so that one that is late is not missed.
LIFE_SECONDS = 180

DIFFER = (
    "Processes of this site have different SECRET_KEYs, so they miss what users wrote by way of the others."
    " Give all the same one; while it is being changed, name the former one in SECRET_KEY_FALLBACKS."
)

# One line per secret: its fingerprint, when it was seen last, and the fingerprints of the former ones that its processes know.
_SAY = """
local kept = {}
local old = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1]) or ''
for line in string.gmatch(old, '[^\\n]+') do
  local secret, seen = string.match(line, '^(%x+) (%d+)')
  if secret and secret ~= ARGV[1] and tonumber(seen) > tonumber(ARGV[2]) - tonumber(ARGV[3]) and #kept < 20 then
    table.insert(kept, line)
  end
end
table.insert(kept, ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[4])
local new = table.concat(kept, '\\n')
redis.call('SET', KEYS[1], new, 'PX', ARGV[3] * 1000)
return new
"""
_LINE = re.compile(r"([0-9a-f]{16}) ([0-9]{1,12}) ([0-9a-f,]*)")


class Said(NamedTuple):
    """What processes with one secret say."""

    secret: str
    seen: int
    known: frozenset[str]

    def is_stranger_to(self, other: Said) -> bool:
        return self.secret != other.secret and self.secret not in other.known and other.secret not in self.known


class Peers:
    """What this process says to the others in one store, and finds that they say. Safe to use from any thread."""

    def __init__(self) -> None:
        self._must_say = False
        self._has_told = False
        self._look_at = 0.0

    def is_due(self) -> bool:
        """Say whether what is stored is to be read now."""
        return self._must_say or time.monotonic() >= self._look_at

    def say(self, memory: Memory, *, in_any_case: bool = False) -> list[Command]:
        """Return what is to be sent beside something else: only where this process has found that it must."""
        if not (self._must_say or in_any_case):
            return []
        self._must_say = False
        me = myself()
        return [("EVAL", _SAY, 1, memory.peers, me.secret, me.seen, LIFE_SECONDS, ",".join(sorted(me.known)))]

    def hear(self, stored: Any, *, has_just_said: bool = False) -> None:
        """Find out from what is `stored` whether something is to be said again, and log once if somebody has another secret."""
        me, others = myself(), read(stored)
        is_said = has_just_said or any(other.secret == me.secret and other.seen > me.seen - SECONDS_BETWEEN for other in others)
        self._must_say, self._look_at = not is_said, time.monotonic() + SECONDS_BETWEEN_LOOKS
        if not self._has_told and has_strangers(stored):
            self._has_told = True
            log.error(DIFFER)


def has_strangers(stored: Any) -> bool:
    """Say whether, by what is stored under a site's key, some process has a secret that neither side knows."""
    me = myself()
    return any(other.is_stranger_to(me) for other in read(stored))


def key_of_site(primary: str) -> str:
    """Return what tells the processes of a site that use this cluster from others in the same Redis, whatever secrets they have."""
    database = settings.DATABASES.get(primary, {})
    site = "\n".join([primary, *(str(database.get(name) or "") for name in ("NAME", "HOST", "PORT"))])
    return hashlib.sha256(site.encode()).hexdigest()[:40]


def read(stored: Any) -> list[Said]:
    """Return what is stored under a site's key; of what is no such thing nothing."""
    matches = (_LINE.fullmatch(line) for line in stored.splitlines()) if isinstance(stored, str) else ()
    return [Said(match[1], int(match[2]), frozenset(match[3].split(","))) for match in matches if match]


def myself() -> Said:
    """Return what this process says now."""
    known = frozenset(_fingerprint(str(secret)) for secret in settings.SECRET_KEY_FALLBACKS)
    return Said(_fingerprint(str(settings.SECRET_KEY)), int(time.time()), known)


@lru_cache(maxsize=16)
def _fingerprint(secret: str) -> str:
    return hmac.digest(b"django_pglb.peers" + secret.encode(), b"the same in every process", "sha256")[:8].hex()
