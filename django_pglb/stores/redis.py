"""Pointers in Redis: one message for a load or a save, and nobody waits for a server that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ClusterCrossSlotError, ResponseError

from ..health.report import STORE_OFFLINE, STORE_ONLINE, STORE_REFUSING, StoreReport
from .base import MemoryLost, StoreError
from .connections import is_starved
from .debts import Loss
from .eviction import eviction_advice
from .memory import KEYS, WELL, probe
from .peers import DIFFER, Peers, has_strangers
from .recovery import Condition, Recovery
from .rights import NO_INFO, NOT_LET_IN, attempts, no_entry, refusal
from .trouble import REDIS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .client import StoreClient
    from .debts import Debt, Save
    from .memory import Command, Memory

IS_NEW = "is new or has lost its memory: it is not believed until STICKY_SECONDS after the first request that noticed"


class RedisPointers:
    """What `CacheStore` keeps in the Redis of the cache `name`. Safe to use from any thread.

    EVAL instead of EVALSHA, because that is what Redis Cluster accepts in a pipeline.
    """

    def __init__(self, client: StoreClient, name: str, *, prefix: str = "") -> None:
        self._client = client
        self._name = name
        self._keys = f"{prefix}{KEYS}"
        self._probe = probe(prefix)
        self._has_slots = False
        """It is a Redis Cluster, or speaks like one, and the client does not know."""
        self._peers = Peers()
        self.recovery = Recovery(self._offer, name=name)

    def load(self, memory: Memory, keys: Sequence[str]) -> list[str | None]:
        """Return what is stored under `keys`, in one round trip while nothing is wrong. Raises `StoreError`."""
        if self.recovery.refuses_loads():
            raise self._refused()
        try:
            # The memory last: what is lost after a pointer was read does not matter.
            if self._peers.is_due():
                saying = self._peers.say(memory)
                *values, said, answer = self._get([*keys, memory.peers, memory.key], beside=saying)
                self._peers.hear(said, has_just_said=bool(saying))
            else:
                *values, answer = self._get([*keys, memory.key])
            if answer != WELL:
                (answer,) = self._execute([memory.settle])
        except REDIS_ERRORS as error:
            # What cannot be asked now may be asked by the next one. A save that was not made must be owed.
            raise (self._silent(error) if is_starved(error) else self._failed(memory, error)) from error
        if answer != WELL:
            raise MemoryLost(f"the pointer store (cache {self._name!r}) {IS_NEW}")
        return values

    def save(self, memory: Memory, saves: Sequence[Save]) -> None:
        """Have all of `saves` acknowledged, in one round trip, or owe them. Raises `StoreError`."""
        if self.recovery.refuses_saves(saves, _loss(memory)):
            raise self._refused()
        try:
            self._execute([save.command for save in saves], beside=self._peers.say(memory))
        except REDIS_ERRORS as error:
            raise self._failed(memory, error, saves) from error
        except BaseException:
            # Whoever interrupts, as a task's time limit does, ends this unit of work. What it has committed binds all the same.
            self._save_in_spite(memory, saves)
            raise

    def _save_in_spite(self, memory: Memory, saves: Sequence[Save]) -> None:
        try:
            self._execute([save.command for save in saves])
        except REDIS_ERRORS as error:
            self.recovery.fail(error, saves, _loss(memory))

    def vouch(self, memory: Memory) -> None:
        """Declare that nothing was lost. Raises `StoreError`."""
        try:
            self._execute([memory.vouch], beside=self._peers.say(memory, in_any_case=True))
        except REDIS_ERRORS as error:
            raise self._silent(error) from error

    def look(self, memory: Memory) -> StoreReport:
        """Return how the server is, by trying what the site asks of it, on a key that is nobody's."""
        name, tried = f"cache {self._name!r}", attempts(memory.nobodys)
        try:
            why = refusal([*tried], self._client.ask([*tried.values()]), user=self._client.user, keys=self._keys)
            if why:
                return StoreReport(name=name, state=STORE_REFUSING, why=why)
            answer, said = self._execute([memory.ask, ("GET", memory.peers)])
            advice = (*((DIFFER,) if has_strangers(said) else ()), *self._advice())
        except NOT_LET_IN as error:
            return StoreReport(name=name, state=STORE_REFUSING, why=no_entry(error, user=self._client.user))
        except REDIS_ERRORS as error:
            return StoreReport(name=name, state=STORE_OFFLINE, why=f"does not answer: {type(error).__name__}")
        return StoreReport(name=name, state=STORE_ONLINE, why="" if answer == WELL else IS_NEW, advice=advice)

    def _advice(self) -> tuple[str, ...]:
        try:
            return eviction_advice(self._client.info("memory"))
        except ResponseError:
            return (NO_INFO,)

    def close(self) -> None:
        """End the thread and close the connections."""
        self.recovery.stop()
        self._client.close()
        self.recovery.join()

    def _offer(self, debts: Sequence[Debt]) -> Sequence[Debt]:
        """Offer what is owed to the store, or ask whether it answers. In the recovery's thread."""
        try:
            self._execute([debt.command for debt in debts] or [self._probe])
        except Exception:
            self._client.drop_idle_connections()
            raise
        return debts

    def _get(self, keys: Sequence[str], *, beside: Sequence[Command] = ()) -> list[Any]:
        """Return what is stored under `keys`, read in this order, in one message. Raises the client library's errors."""
        if not (self._has_slots or self._client.has_slots):
            answer = self._client.ask([("MGET", *keys), *beside])[0]
            if not isinstance(answer, ClusterCrossSlotError):
                return [_text(value) for value in _text(answer)]
            self._has_slots = True
        # In a cluster, one command takes keys of one slot only.
        return self._execute([("GET", key) for key in keys], beside=beside)

    def _execute(self, commands: Sequence[Command], *, beside: Sequence[Command] = ()) -> list[Any]:
        """Return the answers to `commands`, which are sent in one message. Raises the first error among them.

        Whatever becomes of what is said `beside` them to other processes is nobody's trouble.
        """
        return [_text(answer) for answer in self._client.ask([*commands, *beside])[: len(commands)]]

    def _failed(self, memory: Memory, error: Exception, saves: Sequence[Save] = ()) -> StoreError:
        # Any client error means the same to a reader: the store cannot tell. The cause says which.
        self.recovery.fail(error, saves, _loss(memory))
        return self._silent(error)

    def _silent(self, error: Exception) -> StoreError:
        return StoreError(f"the pointer store (cache {self._name!r}) does not answer: {type(error).__name__}")

    def _refused(self) -> StoreError:
        why = "has just come back" if self.recovery.condition is Condition.RECOVERING else "did not answer a moment ago"
        return StoreError(f"the pointer store (cache {self._name!r}) {why}")


def _loss(memory: Memory) -> Loss:
    return Loss(memory.key, memory.lose)


def _text(answer: Any) -> Any:
    """Return an answer as text if it is one; raise it if it is an error of the store. A key of a wrong type is that key's own trouble."""
    if isinstance(answer, bytes):
        return answer.decode("ascii", "replace")
    if not isinstance(answer, Exception):
        return answer
    if str(answer).startswith("WRONGTYPE"):
        return "a value of another type"
    raise answer
