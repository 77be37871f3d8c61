"""How gunicorn runs the served site. What differs between tests is given on its command line."""

from __future__ import annotations

from typing import Any

from tests.served.orphan import end_with_parent

# Longer than any test: a connection that is closed for idleness at the wrong moment would look like a failed request.
keepalive = 120
graceful_timeout = 3
loglevel = "warning"
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Be gone when the test run is."""
    end_with_parent()
