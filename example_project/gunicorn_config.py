"""How gunicorn serves the example, here and in `compose.yml`."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

wsgi_app = "example_project.wsgi"
# Several processes, so that what one of them saved must be found by the other.
workers = 2
preload_app = True
worker_class = "gthread"
threads = 4
loglevel = "warning"
graceful_timeout = 3

# A first look takes some milliseconds; a host that does not answer must not keep a worker from serving for long.
FIRST_LOOK_SECONDS = 2.0


def when_ready(server: Any) -> None:
    """End with the start command, however that ends: it holds the other end of our standard input."""
    if os.environ.get("GUESTBOOK_CONTROL"):
        threading.Thread(target=_end_with_parent, name="guestbook-parent", daemon=True).start()


def post_worker_init(worker: Any) -> None:
    """Look at the hosts before the first request: until a worker knows them, it reads from the primary."""
    # Imported late: in here Django's settings can be read.
    from django_pglb.runtime import get_runtime

    get_runtime().checker.wait_until_known(FIRST_LOOK_SECONDS)


def _end_with_parent() -> None:
    # Not through sys.stdin, whose lock the workers would inherit.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
