"""Saves that the store has not acknowledged, to be offered again."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from .base import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .memory import Command

# A writer a millisecond for ten seconds; 200 bytes each.
MOST_OWED = 10_000

# What `Bound.renewed` does, by text order of fixed-width parts; and it renews the key's life.
# The same position, seen on two hosts, is nobody's in particular: what `core.lsn.later` does. A pointer of another system is dropped,
# except by what does not know its own: what `core.lsn.renewed` does. A text from before these were known has no system.
# Whatever else is under the key gives way. One key per call: Redis Cluster runs a script only where all its keys live.
SET_IF_GREATER = """
local new, none = ARGV[1], '0000000000000000'
local old = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1])
if old and #old == 50 then old = old .. none end
if old and #old == #new then
  local pointer, pin, system = string.sub(new, 1, 37), string.sub(new, 38, 50), string.sub(new, 51)
  local was, is = string.sub(old, 1, 24), string.sub(new, 1, 24)
  if string.sub(is, 1, 8) == '00000000' then
    pointer, system = string.sub(old, 1, 37), string.sub(old, 51)
  elseif system == none or system == string.sub(old, 51) then
    if was > is then pointer = string.sub(old, 1, 37) end
    system = string.sub(old, 51)
    local a, b = tonumber(string.sub(was, 24), 16), tonumber(string.sub(is, 24), 16)
    if string.sub(was, 1, 23) == string.sub(is, 1, 23) and a and b and a ~= b
        and a % 8 > 0 and b % 8 > 0 and math.floor(a / 8) == math.floor(b / 8) then
      pointer = string.sub(pointer, 1, 23) .. (a >= 8 and 'F' or '7') .. string.sub(pointer, 25)
    end
  end
  local pinned = string.sub(old, 38, 50)
  if pinned > pin then pin = pinned end
  new = pointer .. pin .. system
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return new
"""


class Save(NamedTuple):
    """Binds one key by the encoded bound `value` as well."""

    key: str
    value: str
    milliseconds: int

    def merged(self, other: Save) -> Save:
        """Return what has the effect of this and then of the other one."""
        return other._replace(value=encode(decode(self.value).renewed(decode(other.value))))

    @property
    def command(self) -> Command:
        return "EVAL", SET_IF_GREATER, 1, self.key, self.value, self.milliseconds


class Loss(NamedTuple):
    """Declares that pointers are lost."""

    key: str
    command: Command


Debt = Save | Loss


class Debts:
    """What is owed to one store, merged by key, and at most `MOST_OWED` of it. Not safe to share between threads."""

    def __init__(self) -> None:
        self._debts: dict[str, Debt] = {}

    def __len__(self) -> int:
        return len(self._debts)

    def add(self, saves: Iterable[Save], otherwise: Loss) -> bool:
        """Owe `saves`. Where they are too many, the oldest are forgotten and `otherwise` is owed for them; says whether that began now."""
        gave_up = False
        for save in saves:
            owed = self._debts.get(save.key)
            self._debts[save.key] = owed.merged(save) if isinstance(owed, Save) else save
            if len(self._debts) > MOST_OWED:
                gave_up = gave_up or otherwise.key not in self._debts
                self._debts.pop(otherwise.key, None)
                del self._debts[next(iter(self._debts))]
                self._debts[otherwise.key] = otherwise
        return gave_up

    def first(self, count: int) -> list[Debt]:
        """Return the oldest."""
        return list(islice(self._debts.values(), count))

    def settle(self, debts: Iterable[Debt]) -> None:
        """Forget what the store has acknowledged, unless more is owed under the same key by now."""
        for debt in debts:
            if self._debts.get(debt.key) is debt:
                del self._debts[debt.key]
