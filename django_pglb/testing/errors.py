"""What can go wrong with the local cluster.

ClusterError
 ├─ BinaryNotFound   no PostgreSQL or Redis to run
 └─ ServerFailed     a server or one of its tools ended, or did not come up
     └─ PortTaken    somebody else listens on the chosen port
"""

from __future__ import annotations


class ClusterError(Exception):
    """Anything that the local cluster cannot do; the message says which host and what to do."""


class BinaryNotFound(ClusterError):
    """There is no PostgreSQL or Redis to run; the message names the ways to provide one."""


class ServerFailed(ClusterError):
    """A server or one of its tools ended or did not come up; the message carries the end of its log."""


class PortTaken(ServerFailed):
    """Somebody else listens on the chosen port."""
