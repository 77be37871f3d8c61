"""The site of one contender on servers that remember nothing of the one before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.served.program import ROOT

from ..contenders import CONTENDERS, Contender
from ..contenders.pgpool import PORT_VARIABLE
from ..servers import Servers, Site
from .trial import NotInstalled

PLAIN = CONTENDERS[0]
# The same once more, after all others: what has changed meanwhile is the machine.
PLAIN_AGAIN = f"{PLAIN.name}, again"
TIMED_PIN = "two-second pin"
READ_YOUR_WRITES, MONOTONIC = OURS = ("django-pglb, read_your_writes", "django-pglb, monotonic")
VOUCH = "import django; django.setup(); from django_pglb.runtime import get_runtime; get_runtime().vouch('default')"


@contextmanager
def staged(servers: Servers, contender: Contender, delay_seconds: float = 0) -> Iterator[Site]:
    """Start the contender's site, and its proxy if it has one, on fresh servers whose replicas lag by this; both end with the block.

    Raises `NotInstalled`.
    """
    missing = contender.missing()
    if missing:
        raise NotInstalled(missing)
    refresh(servers)
    if delay_seconds:
        for replica in servers.cluster.replicas:
            replica.delay_replay(delay_seconds)
    with ExitStack() as stack:
        more = {}
        if contender.proxy is not None:
            more[PORT_VARIABLE] = str(stack.enter_context(contender.proxy(servers.cluster)).port)
        yield stack.enter_context(Site(servers.environment(contender.name, **more)))


def refresh(servers: Servers) -> None:
    """Mend every server, let the replicas catch up, and let Redis forget users, but be believed."""
    servers.cluster.heal()
    servers.forget()
    # A Redis that has just started might have lost pointers; for half a minute nobody would be sent to a replica on its word.
    subprocess.run([sys.executable, "-c", VOUCH], cwd=ROOT, env=servers.environment(READ_YOUR_WRITES), check=True)
