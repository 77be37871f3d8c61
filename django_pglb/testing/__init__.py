"""A real PostgreSQL cluster for tests: start it, break it, heal it. Needs neither Django's settings nor a container engine."""

from __future__ import annotations

from .assertions import assert_served_by, recorded_decisions
from .cluster import PLAIN_ROLE, Cluster
from .errors import BinaryNotFound, ClusterError, PortTaken, ServerFailed
from .postgres import PostgresHost, Replica
from .redis import RedisServer
from .waiting import wait_until

__all__ = [
    "PLAIN_ROLE",
    "BinaryNotFound",
    "Cluster",
    "ClusterError",
    "PortTaken",
    "PostgresHost",
    "RedisServer",
    "Replica",
    "ServerFailed",
    "assert_served_by",
    "recorded_decisions",
    "wait_until",
]
