"""What must be so before anything is measured: the package knows its hosts, and its store is believed."""

from __future__ import annotations

from .contenders import REPLICAS
from .environment import contender


def wait_until_ready() -> None:
    """Wait until both replicas are in the rotation. Nothing to do for other contenders."""
    if not contender().is_ours:
        return
    from django_pglb import runtime
    from django_pglb.testing import wait_until

    runtime.get_runtime().vouch("default")
    wait_until(
        lambda: len(runtime.get_runtime().topology("default").online) == len(REPLICAS), what="both replicas to be online", timeout=60
    )
