"""What happens to replicas. None of it is the user's trouble: no error is allowed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence

import psycopg

from django_pglb.testing import Replica

from ..checker import FinalState
from ..history import Operation
from ..statistics import percentile
from ..world import DATABASE, World
from .base import Fault, HostFrozen

SLOWEST_READ_SECONDS = 3.0
# An interval and a timeout of the checker, and a second for a busy machine.
KNOWN_AFTER_SECONDS = 3.0
SLOWEST_LATE_READ_SECONDS = 1.0
CONFLICTS = (
    "SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts",
    "SELECT sum(confl_lock) FROM pg_stat_database_conflicts",
)


class ReplicasKilled(Fault):
    """Replicas die by SIGKILL, and are started again."""

    name = "replicas killed"

    def __init__(self, world: World, replicas: Sequence[Replica]) -> None:
        super().__init__(world)
        self._replicas = replicas

    def break_it(self) -> None:
        self._started_at = [self.world.started_at(replica) for replica in self._replicas]
        for replica in self._replicas:
            self.world.kill(replica)

    def mend(self) -> None:
        for replica in self._replicas:
            self.world.revive(replica)
        for replica, before in zip(self._replicas, self._started_at, strict=True):
            self.witness(self.world.started_at(replica) != before, f"{replica.name} was started anew")


class ReplicaFrozen(HostFrozen):
    """A replica stops in its tracks. Whoever asked it before it was known to be frozen waits, but not for long; nobody else does."""

    name = "replica frozen"

    def complaints(self, history: Sequence[Operation], final: FinalState) -> Iterable[str]:
        reads = [operation for operation in history if not operation.is_write]
        late = [read for read in reads if self.started + KNOWN_AFTER_SECONDS < read.started < self.ended]
        for which, percent, most in ((reads, 99.9, SLOWEST_READ_SECONDS), (late, 99, SLOWEST_LATE_READ_SECONDS)):
            slowest = percentile([read.seconds for read in which], percent)
            if slowest > most:
                when = "" if which is reads else " that began after the host was known to be frozen"
                yield f"p{percent:g} of reads{when} is {slowest:.1f} s, not {most:g} s at most"


class ReplayHeld(Fault):
    """Replay is paused on one replica and delayed on the other."""

    name = "replay held"

    def __init__(self, world: World, delay_seconds: float = 2.0) -> None:
        super().__init__(world)
        self._delay_seconds = delay_seconds

    def break_it(self) -> None:
        paused, delayed = self.world.replicas
        delayed.delay_replay(self._delay_seconds)
        paused.pause_replay()

    def mend(self) -> None:
        paused, delayed = self.world.replicas
        self.world.commit_something()
        for replica, how in ((paused, "paused"), (delayed, "delayed")):
            behind = self.world.primary.write_lsn - replica.replay_lsn
            self.witness(behind > 0, f"{replica.name} ({how}) was {behind} bytes behind")
        self.world.restore_lag(delayed)
        paused.resume_replay()


class ReplicaRewound(Fault):
    """A replica crashes and comes back behind what it has served: it replays again from its last restart point, and slowly.

    PostgreSQL does so by itself, for as long as redo takes. A delay of replay that comes into force with the restart makes it last.
    """

    name = "replica rewound"
    DELAY_SECONDS = 120

    def __init__(self, world: World, replica: Replica) -> None:
        super().__init__(world)
        self._replica = replica

    def prepare(self) -> None:
        replica, primary = self._replica, self.world.primary
        # As long as nothing forces pages out, the crash leaves the data files as they were at the restart point.
        for setting, value in (("checkpoint_timeout", "1h"), ("max_wal_size", "4GB"), ("bgwriter_lru_maxpages", 0)):
            replica.alter_system(setting, value)
        primary.ask("CHECKPOINT")
        replica.wait_for_lsn(primary.write_lsn)
        replica.ask("CHECKPOINT")

    def break_it(self) -> None:
        replica = self._replica
        replica.ask(f"ALTER SYSTEM SET recovery_min_apply_delay = {self.DELAY_SECONDS * 1000}")
        served = replica.replay_lsn
        replica.stop("immediate")
        self.world.proxy(replica).refuse()
        self.world.revive(replica)
        shown = replica.replay_lsn
        self.witness(shown < served, f"{replica.name} came back {served - shown} bytes behind what it had replayed")

    def mend(self) -> None:
        self.world.restore_lag(self._replica)
        for setting in ("checkpoint_timeout", "max_wal_size", "bgwriter_lru_maxpages"):
            self._replica.ask(f"ALTER SYSTEM RESET {setting}")
        self._replica.reload()


class ConflictStorm(Fault):
    """Replay cancels whatever is in its way, and the primary sees to it that much is: VACUUM, and tables dropped under their readers."""

    name = "conflict storm"
    PAUSE_SECONDS = 0.1

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._stopping = threading.Event()
        self._error: Exception | None = None

    def break_it(self) -> None:
        for replica in self.world.replicas:
            replica.alter_system("max_standby_streaming_delay", 0)
        self._conflicts_before = self._conflicts()
        self._thread = threading.Thread(target=self._storm, name="conflict storm")
        self._thread.start()

    def mend(self) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        for replica in self.world.replicas:
            replica.ask("ALTER SYSTEM RESET max_standby_streaming_delay")
            replica.reload()
        by_vacuum, by_drop = (after - before for after, before in zip(self._conflicts(), self._conflicts_before, strict=True))
        what = f"the replicas cancelled {by_vacuum} statements because of VACUUM and {by_drop} because of DROP TABLE"
        self.witness(by_vacuum + by_drop > 0, what)

    def _conflicts(self) -> tuple[int, int]:
        """Return how many statements the replicas have cancelled, because of VACUUM and because of DROP TABLE."""
        found = [[int(replica.ask(count)) for replica in self.world.replicas] for count in CONFLICTS]
        return sum(found[0]), sum(found[1])

    def _storm(self) -> None:
        try:
            with self.world.primary.connect(dbname=DATABASE) as connection:
                # Readers on the primary keep a table from being dropped, and whoever waits for it keeps readers waiting.
                connection.execute("SET lock_timeout = '200ms'")
                while not self._stopping.wait(self.PAUSE_SECONDS):
                    self._blow(connection)
        except psycopg.Error as error:
            self._error = error

    def _blow(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with contextlib.suppress(psycopg.errors.LockNotAvailable):
            connection.execute("CREATE TABLE IF NOT EXISTS consistency_noise_child () INHERITS (consistency_noise)")
            connection.execute("UPDATE ONLY consistency_noise SET value = value + 1")
            connection.execute("VACUUM consistency_noise")
            self._stopping.wait(self.PAUSE_SECONDS)
            connection.execute("DROP TABLE IF EXISTS consistency_noise_child")
