"""Whether a Redis forgets pointers to make room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAFE_POLICY = "noeviction"
# Also volatile-ttl: pointers live an hour, so it takes them before sessions, which live for weeks.
ADVICE = (
    "maxmemory-policy is {policy}: when this Redis is full it forgets pointers, and nobody notices."
    " Set noeviction, or give pointers a Redis of their own (there volatile-ttl does little harm)."
)


def eviction_advice(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what should be changed, from the answer to `INFO memory`: of one server, or of each node of a cluster."""
    policies = {str(node.get("maxmemory_policy", SAFE_POLICY)) for node in _nodes(info) if node.get("maxmemory")}
    return tuple(ADVICE.format(policy=policy) for policy in sorted(policies - {SAFE_POLICY}))


def _nodes(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "maxmemory_policy" in info:
        yield info
    else:
        yield from (node for node in info.values() if isinstance(node, dict))
