"""Free TCP ports on loopback that stay free while their server is down."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from .errors import ClusterError

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 10_240
# The lowest port that the operating system hands to clients where /proc does not say; IANA's range begins at 49152.
FIRST_EPHEMERAL_PORT = 32_768


def free_port() -> int:
    """Return a port that nobody listens on, below those that the operating system gives to clients.

    A dead host's port in that range could be taken by any outgoing connection; worse, a client that tries to connect
    to it could be given the same port and be connected to itself.
    """
    for _ in range(100):
        port = random.randrange(LOWEST_PORT, _first_ephemeral_port())
        if _is_free(port):
            return port
    raise ClusterError(f"found no free port on {LOOPBACK} in 100 tries")


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = FIRST_EPHEMERAL_PORT
    return first if first > LOWEST_PORT + 1000 else 65_536


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
