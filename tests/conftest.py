"""Lists the fixture modules, and makes the run independent of who started it."""

from __future__ import annotations

import signal

pytest_plugins = ["tests.fix_cluster", "tests.fix_served", "tests.fix_site"]

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
