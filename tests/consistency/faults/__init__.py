"""What can go wrong: each fault breaks something in the world, mends it, and says how the servers themselves have noticed."""

from __future__ import annotations

from .base import Allowance, Fault, Reads
from .jobs import ReplayDelayed, WorkersKilled
from .network import HostCut, HostSlow, RepliesLost
from .primary import PrimaryFrozen, PrimaryKilled, PrimaryRestarted, Promotion, SplitBrain
from .redis import RedisFrozen, RedisKilled
from .replicas import ConflictStorm, ReplayHeld, ReplicaFrozen, ReplicaRewound, ReplicasKilled

__all__ = [
    "Allowance",
    "ConflictStorm",
    "Fault",
    "HostCut",
    "HostSlow",
    "PrimaryFrozen",
    "PrimaryKilled",
    "PrimaryRestarted",
    "Promotion",
    "Reads",
    "RedisFrozen",
    "RedisKilled",
    "ReplayDelayed",
    "ReplayHeld",
    "ReplicaFrozen",
    "ReplicaRewound",
    "ReplicasKilled",
    "RepliesLost",
    "SplitBrain",
    "WorkersKilled",
]
