"""The addresses of a host that has several, some of which may be black holes.

psycopg tries one after the other, and one that never answers takes all the time that a probe has. So after such a probe the next one
begins with the next address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Address(NamedTuple):
    """One of a host's addresses, in libpq's words; empty where libpq has to find out for itself."""

    host: str
    hostaddr: str
    port: str


async def beginning_with(turn: int, params: Mapping[str, str], seconds: float) -> dict[str, str]:
    """Return `params` with every address that is found within `seconds`, beginning with number `turn`, round and round."""
    addresses = await _all_addresses(listed(params), seconds)
    first = turn % len(addresses)
    hosts, hostaddrs, ports = (",".join(words) for words in zip(*addresses[first:], *addresses[:first], strict=True))
    return {**params, "host": hosts, "hostaddr": hostaddrs, "port": ports}


def listed(params: Mapping[str, str]) -> list[Address]:
    """Return what `params` list, names not yet resolved. Lists of different lengths are psycopg's to refuse."""
    lists = [params.get(key, "").split(",") for key in Address._fields]
    count = max(len(words) for words in lists[:2])
    whole = [words if len(words) == count else [words[0]] * count for words in lists]
    return [Address(*words) for words in zip(*whole, strict=True)]


async def _all_addresses(entries: Sequence[Address], seconds: float) -> list[Address]:
    lookups = [asyncio.create_task(_resolved(entry)) for entry in entries]
    try:
        await asyncio.wait(lookups, timeout=seconds)
    finally:
        for lookup in lookups:
            lookup.cancel()
    found = (lookup.result() if lookup.done() else [entry] for entry, lookup in zip(entries, lookups, strict=True))
    return [address for addresses in found for address in addresses]


async def _resolved(entry: Address) -> list[Address]:
    if entry.hostaddr or not entry.host or entry.host.startswith(("/", "@")) or _is_address(entry.host):
        return [entry]
    loop = asyncio.get_running_loop()
    try:
        answer = await loop.getaddrinfo(entry.host, entry.port or "5432", proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
    except OSError:
        return [entry]  # whoever connects will say so
    return [entry._replace(hostaddr=str(item[4][0])) for item in answer] or [entry]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
