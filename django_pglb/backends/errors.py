"""What a replica's connection raises of our own, below Django's database errors.

psycopg.OperationalError
 ├─ HostIsOut
 └─ ReadTimedOut
"""

from __future__ import annotations

import psycopg


class HostIsOut(psycopg.OperationalError):
    """The checker has found the host out of order, so nobody connects to it: that might cost the whole `connect_timeout`."""


class ReadTimedOut(psycopg.OperationalError):
    """A replica has not answered within `READ_TIMEOUT`. The connection was ended, or is about to be."""
