"""The site under gunicorn, with our package or without."""

from __future__ import annotations

from collections.abc import Mapping

from django_pglb.testing import wait_until
from tests.served.client import Answer, ApiClient, Wire
from tests.served.prepare import username
from tests.served.site import READY_SECONDS, GunicornSite, sees_replicas_online

from .workload import BROWSER_USERS
from .world import OURS, World

WORKERS, THREADS = 2, 4
# Takes no part in the load.
BYSTANDER = BROWSER_USERS


class ConsistencySite(GunicornSite):
    """The site under gunicorn. With our package it is ready when every worker sees both replicas online, and they answer."""

    def __init__(self, world: World, settings: str, environment: Mapping[str, str]) -> None:
        super().__init__("tests.consistency.wsgi:application", environment, workers=WORKERS, threads=THREADS)
        self._world = world
        self._is_ours = settings == OURS

    def is_ready(self, answer: Answer) -> bool:
        return sees_replicas_online(answer) if self._is_ours else super().is_ready(answer)

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        if self._is_ours:
            wait_until(self._is_answered_by_replicas, timeout=READY_SECONDS, what="replicas to answer those whom the store must know")
            self._world.note_lasting_keys()

    def _is_answered_by_replicas(self) -> bool:
        """Ask as somebody who has written nothing.

        A store that is new to the site is not believed at first; for how long, it says itself, in a key that expires.
        """
        if all(self._answers_bystander().reasons == ("replica",) for _ in range(4 * WORKERS)):
            return True
        self._world.let_keys_expire()
        return False

    def _answers_bystander(self) -> Answer:
        with Wire(self.port) as wire:
            return wire.request("GET", f"/read/orm/?follow={username(BYSTANDER)}", ApiClient(BYSTANDER))
