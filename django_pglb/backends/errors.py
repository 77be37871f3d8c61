"""What a replica's connection raises of our own, below Django's database errors.

psycopg.OperationalError
 └─ HostIsOut
"""

from __future__ import annotations

import psycopg


class HostIsOut(psycopg.OperationalError):
    """The checker has found the host out of order, so nobody connects to it: that might cost the whole `connect_timeout`."""
