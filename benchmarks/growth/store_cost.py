"""What pointers cost the Redis server, by its own count."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from django_pglb.core.lsn import Pointer
from django_pglb.core.routing_session import Bound, Identity
from django_pglb.runtime import get_runtime

from .setup import PRIMARY
from .trial import StoreCost, Trip


def measure_store(url: str, rounds: int) -> StoreCost:
    """Return what the store that this process uses costs the server at `url`, which must hold nothing else."""
    runtime = get_runtime()
    runtime.vouch(PRIMARY)
    server = redis.Redis.from_url(url)
    runtime.load(PRIMARY, identities(0))  # opens the connection
    empty, keys = server.info("memory")["used_memory"], server.dbsize()
    saving = measure_trip(server, rounds, lambda number: runtime.save(PRIMARY, identities(number), bound(number)))
    full, kept = server.info("memory")["used_memory"], server.dbsize()
    loading = measure_trip(server, rounds, lambda number: runtime.load(PRIMARY, identities(number)))
    cost = StoreCost(loading, saving, (full - empty) / (kept - keys), int(str(server.config_get("maxclients")["maxclients"])))
    server.close()
    return cost


def identities(number: int) -> tuple[Identity, ...]:
    return ("session", f"{number:032d}"), ("user", str(number))


def bound(number: int) -> Bound:
    return Bound(Pointer(1, 2**32 + number * 8, time.time()))


def measure_trip(server: redis.Redis, rounds: int, trip: Callable[[int], object]) -> Trip:
    """Return what the server counts for one of `rounds` trips."""
    before = counters(server)
    for number in range(rounds):
        trip(number)
    # All but the count of the count itself, which is one command and a few bytes among thousands.
    return Trip(*((new - old) / rounds for new, old in zip(counters(server), before, strict=True)))


def counters(server: redis.Redis) -> Trip:
    info = server.info()
    return Trip(
        info["total_commands_processed"],
        info["total_net_input_bytes"],
        info["total_net_output_bytes"],
        (info["used_cpu_user"] + info["used_cpu_sys"]) * 1e6,
    )
