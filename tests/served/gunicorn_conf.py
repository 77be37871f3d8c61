"""How gunicorn runs the served site. What differs between tests is given on its command line."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Any

# Longer than any test: a connection that is closed for idleness at the wrong moment would look like a failed request.
keepalive = 120
graceful_timeout = 3
loglevel = "warning"
control_socket_disable = True

PR_SET_PDEATHSIG = 1


def on_starting(server: Any) -> None:
    """End with the test run, also when that is killed. https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
