"""A big site on paper: what it needs of each of its parts, from what one process was measured to need."""

from __future__ import annotations

from statistics import linear_regression, mean
from typing import NamedTuple

from .bookkeeping import Bookkeeping
from .knowledge import DEFAULTS
from .trial import Trial

LOOKING = "Each process: processor for its checker"
LOOKING_OF_ALL = "All processes: the same"


class Scenario(NamedTuple):
    """What is assumed of the site. Change it here to see another one."""

    processes: int = 1000
    replicas: int = 50
    threads: int = 1
    """Of each process; each keeps its connections (`CONN_MAX_AGE = None`)."""
    requests_per_second: float = 20
    """Of each process."""
    identified_share: float = 0.8
    """Of requests that come with a session or a token."""
    write_share: float = 0.1

    @property
    def hosts(self) -> int:
        return self.replicas + 1

    @property
    def loads_per_second(self) -> float:
        """Of one process: each identified request that reads loads pointers once. One with an unsafe method has no use for them."""
        return self.requests_per_second * self.identified_share * (1 - self.write_share)

    @property
    def saves_per_second(self) -> float:
        """Of one process: each identified request that wrote saves its pointer once, under the session and the user."""
        return self.requests_per_second * self.identified_share * self.write_share


class UnitCosts(NamedTuple):
    """What was measured, as far as the sums below rest on it."""

    probe_us: float
    """Of a server's processor, at the pace of one process."""
    hot_probe_us: float
    """The same with warm caches."""
    checker_backend_kib: float
    looking_ms: float
    """Of a process's processor for one probe, without what it then makes of the answer."""
    thinking_ms: float
    """Of a process's processor for what it makes of one look at all hosts of the scenario."""
    host_kib: float
    """Memory of a process for each host that its checker looks at: the connection, mostly."""
    knowledge_kib: float
    """Memory of a process for what is known of all hosts of the scenario."""
    load_us: float
    save_us: float
    load_bytes: tuple[float, float]
    """To Redis and from it."""
    save_bytes: tuple[float, float]
    bytes_per_pointer: float
    max_clients: int
    max_connections: int


def unit_costs(trials: list[Trial], books: dict[int, Bookkeeping], scenario: Scenario) -> UnitCosts:
    """Return what one of each costs, by the trial with the most replicas unless it takes several to tell."""
    largest = max(trials, key=lambda trial: trial.replicas)
    store = largest.store
    per_second = 1 / DEFAULTS.check_interval
    looking = largest.checker_ms_per_second - books[largest.replicas].look_ms * per_second
    slope = linear_regression([trial.replicas for trial in trials], [trial.checker_kib for trial in trials]).slope
    return UnitCosts(
        probe_us=largest.probe_us,
        hot_probe_us=largest.hot_probe_us,
        checker_backend_kib=mean(trial.checker_backend_kib for trial in trials),
        looking_ms=max(0.0, looking) / sum(largest.probes_per_second),
        thinking_ms=books[scenario.replicas].look_ms,
        host_kib=max(0.0, slope),
        knowledge_kib=books[scenario.replicas].kept_kib[-1],
        load_us=store.load.processor_us,
        save_us=store.save.processor_us,
        load_bytes=(store.load.bytes_in, store.load.bytes_out),
        save_bytes=(store.save.bytes_in, store.save.bytes_out),
        bytes_per_pointer=store.bytes_per_pointer,
        max_clients=store.max_clients,
        max_connections=largest.default_max_connections,
    )


class Need(NamedTuple):
    """What the scenario needs of something: the sum, in words and in numbers."""

    what: str
    formula: str
    amount: float
    unit: str


def needs(scenario: Scenario, costs: UnitCosts) -> list[Need]:
    """Return what the scenario needs."""
    everybody, interval = scenario.processes, DEFAULTS.check_interval
    probes = everybody / interval
    loads, saves = everybody * scenario.loads_per_second, everybody * scenario.saves_per_second
    bytes_in, bytes_out = (loads * load + saves * save for load, save in zip(costs.load_bytes, costs.save_bytes, strict=True))
    remembered = saves * 2 * DEFAULTS.pointer_seconds
    checker_ms = (scenario.hosts * costs.looking_ms + costs.thinking_ms) / interval
    kib = scenario.hosts * costs.host_kib + costs.knowledge_kib
    redis_us = loads * costs.load_us + saves * costs.save_us
    return [
        Need("Each server: probes", "processes / `CHECK_INTERVAL`", probes, "a second"),
        Need("Each server: processor for probes", "probes × what one costs, warm", probes * costs.hot_probe_us / 1e4, "% of a core"),
        Need("The same, if caches are cold", "probes × what one costs, cold", probes * costs.probe_us / 1e4, "% of a core"),
        Need("Each server: connections of checkers", "processes", everybody, ""),
        Need("Each server: memory for these", "connections × that of one", everybody * costs.checker_backend_kib / 2**20, "GiB"),
        Need("Each replica: connections for reads, at most", "processes × threads", everybody * scenario.threads, ""),
        Need("A server that comes back: connections in its first second", "processes / `CHECK_INTERVAL`", probes, ""),
        Need("Each process: probes", "hosts / `CHECK_INTERVAL`", scenario.hosts / interval, "a second"),
        Need(LOOKING, "(hosts × one probe + one look) / `CHECK_INTERVAL`", checker_ms / 10, "% of a core"),
        Need(LOOKING_OF_ALL, "× processes", everybody * checker_ms / 1000, "cores"),
        Need("Each process: memory for its checker", "hosts × that of one + what is known", kib / 1024, "MiB"),
        Need("Redis: loads", "processes × requests × identified × (1 - writes)", loads, "a second"),
        Need("Redis: saves", "processes × requests × identified × writes", saves, "a second"),
        Need("Redis: traffic to it", "loads and saves × their bytes", bytes_in / 2**20, "MiB a second"),
        Need("Redis: traffic from it", "the same", bytes_out / 2**20, "MiB a second"),
        Need("Redis: processor", "loads and saves × what one costs", redis_us / 1e4, "% of a core"),
        Need("Redis: memory, at most", "saves × 2 × `POINTER_SECONDS` × a pointer", remembered * costs.bytes_per_pointer / 2**30, "GiB"),
    ]


class Limit(NamedTuple):
    """Something that a site runs out of as its processes grow in number."""

    what: str
    processes: float
    """With so many it is used up."""
    remedy: str


def limits(scenario: Scenario, costs: UnitCosts) -> list[Limit]:
    """Return what runs out, the first first. Reads that fall to the primary are no matter of the number of processes."""
    of_redis_us = scenario.loads_per_second * costs.load_us + scenario.saves_per_second * costs.save_us
    of_probes = 1e6 * DEFAULTS.check_interval
    found = [
        Limit(
            f"`max_connections` of each server as PostgreSQL comes ({costs.max_connections})",
            costs.max_connections / (1 + scenario.threads),
            "a transaction-pooling PgBouncer before each server (`POOLED`), through which checkers go, too; or more connections",
        ),
        Limit("a core of each server, by probes alone, with warm caches", of_probes / costs.hot_probe_us, "a longer `CHECK_INTERVAL`"),
        Limit("a core of each server, by probes alone, with cold caches", of_probes / costs.probe_us, "a longer `CHECK_INTERVAL`"),
        Limit("the one core that Redis uses", 1e6 / of_redis_us, "Redis Cluster, or the cookie store"),
        Limit(
            f"`maxclients` of Redis as it comes ({costs.max_clients:,})", costs.max_clients / scenario.threads, "a higher limit of Redis"
        ),
    ]
    return sorted(found, key=lambda limit: limit.processes)
