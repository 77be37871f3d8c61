"""Lists the fixture modules, and makes the run independent of who started it."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = [f"tests.fix_{concern}" for concern in ("cluster", "served", "site", "clusters", "store", "jobs", "routed")]

# How long an example takes, or how long it takes to find one, says something about the machine only.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
