"""From the `PGLB` setting to a `Config`, with all that is wrong on the way.

What is wrong with one key costs that key only: it keeps its default, so that one run of the checks shows everything.
Nothing may *run* on such a configuration; `conf.get_config()` sees to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from .config import ClusterConfig, Config, ReplicaConfig
from .config_keys import (
    DEFAULT,
    HOW_TO_CONVERT_BOOL,
    KEY_NAMES,
    KEYS,
    KNOWN_SETTINGS,
    REPLICA_KEYS,
    REPLICAS,
    Place,
    choice,
)
from .job import Consistency
from .problem import CheckId, Problem, did_you_mean, kind_of, listed, setting_path, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

# A request that began just before its replica went out of the rotation may still be reading from it: a long request's length.
LONGEST_REQUEST_SECONDS: Final = 10

EXAMPLE: Final = 'Write PGLB = {"default": {"REPLICAS": ["replica1"]}}: the primary\'s alias, and the aliases of its replicas.'


def parse(raw: object, *, enabled: bool, debug: bool, database_aliases: Collection[str]) -> tuple[Config, tuple[Problem, ...]]:
    """Return the configuration that `raw`, the `PGLB` setting, describes, and what is wrong with it.

    With `enabled` false there is none, whatever state the setting is in: the switch must always work.
    """
    if not enabled:
        return Config(enabled=False), ()
    problems: list[Problem] = []
    place = Place("PGLB", problems)
    if not isinstance(raw, dict):
        place.add(CheckId.NOT_A_DICT, f"must be a dict keyed by the primary's alias, not {shown(raw)}.", EXAMPLE)
        return Config(), tuple(problems)
    parsing = _Parsing(raw, database_aliases, debug)
    found = [parsing.cluster(primary, options, place.inside(primary)) for primary, options in raw.items()]
    clusters = {cluster.primary: cluster for cluster in found if cluster is not None}
    _compare_identities(clusters, place)
    return Config(clusters=clusters), tuple(problems)


def parse_enabled(raw: object) -> tuple[bool, tuple[Problem, ...]]:
    """Return what `PGLB_ENABLED` says; on if it cannot be read."""
    if isinstance(raw, bool):
        return raw, ()
    message = f"PGLB_ENABLED: must be True or False, not {shown(raw)}."
    return True, (Problem(CheckId.ENABLED_NOT_A_BOOL, message, HOW_TO_CONVERT_BOOL if isinstance(raw, str) else ""),)


def parse_task_consistency(raw: object) -> tuple[Consistency, tuple[Problem, ...]]:
    """Return what `PGLB_TASK_CONSISTENCY` says; the default if it cannot be read."""
    problems: list[Problem] = []
    level = choice(*Consistency)(raw, Place("PGLB_TASK_CONSISTENCY", problems))
    return Consistency.ALWAYS if level is DEFAULT else Consistency(level), tuple(problems)


def find_unknown_settings(names: Collection[str]) -> tuple[Problem, ...]:
    """Return a problem for each of the project's settings (`names`) that looks like one of ours and is none."""
    return tuple(
        Problem(CheckId.UNKNOWN_SETTING, f"{name}: not a setting of django-pglb{did_you_mean(name, KNOWN_SETTINGS) or '.'}", "Correct it.")
        for name in names
        if name.startswith("PGLB") and name not in KNOWN_SETTINGS
    )


class _Parsing:
    """One run over `PGLB`: what all clusters need to know of each other."""

    def __init__(self, raw: Mapping[Any, object], database_aliases: Collection[str], debug: bool) -> None:
        self.primaries: AbstractSet[Any] = raw.keys()
        self.database_aliases = database_aliases
        self.debug = debug
        self.cluster_of_replica: dict[str, str] = {}

    def cluster(self, primary: object, options: object, place: Place) -> ClusterConfig | None:
        """Return one entry of `PGLB`; None if not even its primary is usable."""
        if not isinstance(primary, str) or primary not in self.database_aliases:
            self._note_unknown_primary(primary, place)
            return None
        if not isinstance(options, dict):
            place.add(CheckId.CLUSTER_NOT_A_DICT, f"must be a dict of options, not {shown(options)}.", EXAMPLE)
            return None
        replicas = self._replicas(primary, options, place)
        by_debug = {"debug_header": self.debug, "guard_stale_saves": "warn" if self.debug else "off"}
        fields = {**by_debug, **_fields(options, place)}
        cluster = ClusterConfig(primary=primary, replicas=replicas, **fields)
        _compare_seconds(cluster, place)
        return cluster

    def _note_unknown_primary(self, primary: object, place: Place) -> None:
        if primary in KEY_NAMES:
            what, hint = f"{shown(primary)} is a key of a cluster, one level further in.", EXAMPLE
        else:
            what = "not an alias in DATABASES" + (did_you_mean(primary, self.database_aliases) or ".")
            hint = f"PGLB is keyed by the primary's alias. DATABASES has {listed(self.database_aliases)}."
        place.add(CheckId.UNKNOWN_PRIMARY, what, hint)

    # --- REPLICAS ---

    def _replicas(self, primary: str, options: Mapping[Any, object], place: Place) -> tuple[ReplicaConfig, ...]:
        entries = _replica_entries(options, place)
        place = place.inside(REPLICAS)
        found: list[ReplicaConfig] = []
        for alias, replica_options in entries:
            replica = _replica(alias, replica_options, place)
            if self._is_usable(alias, primary, place):
                self.cluster_of_replica[cast("str", alias)] = primary
                found.append(replica)
        return tuple(found)

    def _is_usable(self, alias: object, primary: str, place: Place) -> bool:
        """Tell whether `alias` can be a replica of `primary`; note why not."""
        if not isinstance(alias, str):
            place.wrong_type("a list of aliases", alias, "Describe the database in DATABASES and name its alias here.")
        elif alias == primary:
            place.add(
                CheckId.REPLICA_IS_ITS_PRIMARY,
                f"{shown(alias)} is the primary itself.",
                "List the replicas only; the primary needs no mention.",
            )
        elif alias not in self.database_aliases:
            guess = did_you_mean(alias, self.database_aliases) or "."
            place.add(
                CheckId.UNKNOWN_REPLICA,
                f"{shown(alias)} is not an alias in DATABASES{guess}",
                f"DATABASES has {listed(self.database_aliases)}.",
            )
        elif alias in self.primaries:
            place.add(
                CheckId.REPLICA_IS_A_PRIMARY,
                f"{shown(alias)} is a primary as well: {setting_path('PGLB', alias)}.",
                "An alias is one or the other.",
            )
        elif self.cluster_of_replica.get(alias) == primary:
            place.add(CheckId.REPLICA_TWICE, f"{shown(alias)} is listed twice.", "For more reads use WEIGHT.")
        elif alias in self.cluster_of_replica:
            other = setting_path("PGLB", self.cluster_of_replica[alias], REPLICAS)
            place.add(CheckId.REPLICA_IN_TWO_CLUSTERS, f"{shown(alias)} is also listed in {other}.", "A replica follows one primary.")
        else:
            return True
        return False


def _replica_entries(options: Mapping[Any, object], place: Place) -> list[tuple[object, object]]:
    """Return pairs of alias and options, whichever form `REPLICAS` has."""
    if REPLICAS not in options:
        place.add(
            CheckId.REPLICAS_MISSING, "REPLICAS is missing.", "List the replicas' aliases; [] if there is none here, as in development."
        )
        return []
    value, place = options[REPLICAS], place.inside(REPLICAS)
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list | tuple):
        return [(alias, {}) for alias in value]
    if isinstance(value, str):
        place.add(CheckId.REPLICAS_IS_A_STRING, f"is one string, {shown(value)}; it must be a list of aliases.", f"Write [{shown(value)}].")
    else:
        place.wrong_type("a list of aliases, or a dict of aliases and their options", value)
    return []


def _replica(alias: object, options: object, place: Place) -> ReplicaConfig:
    place = place.inside(alias)
    fields: dict[str, Any] = {}
    if not isinstance(options, dict):
        # Its kind only: where somebody describes the database itself here, it is a password.
        place.add(CheckId.WRONG_TYPE, f"must be a dict of options, not {kind_of(options)}.", 'Write {"WEIGHT": 1}, or {} for none.')
        return ReplicaConfig(alias=str(alias))
    names = tuple(key.name for key in REPLICA_KEYS)
    for key in REPLICA_KEYS:
        if key.name in options:
            fields[key.field] = key.read(options[key.name], place.inside(key.name))
    for name in [name for name in options if name not in names]:
        guess = did_you_mean(name, names) or "."
        place.inside(name).add(CheckId.UNKNOWN_REPLICA_OPTION, f"unknown option of a replica{guess}", f"Known are {listed(names)}.")
    return ReplicaConfig(alias=str(alias), **{name: value for name, value in fields.items() if value is not DEFAULT})


# --- The other keys ---


def _fields(options: Mapping[Any, object], place: Place) -> dict[str, Any]:
    """Return the fields that `options` sets and that could be read."""
    for name in options:
        if name not in KEY_NAMES:
            _note_unknown_key(name, place.inside(name))
    values = {key.field: key.read(options[key.name], place.inside(key.name)) for key in KEYS if key.name in options}
    return {field: value for field, value in values.items() if value is not DEFAULT}


def _note_unknown_key(name: object, place: Place) -> None:
    guess = did_you_mean(name, KEY_NAMES) or "."
    place.add(CheckId.UNKNOWN_KEY, f"unknown key{guess}", f"Known are {listed(KEY_NAMES)}.")


def _compare_seconds(cluster: ClusterConfig, place: Place) -> None:
    """Warn where a write may be forgotten while a replica that has not replayed it is still read from."""
    lag, pointer = cluster.max_lag_seconds, cluster.pointer_seconds
    if not cluster.replicas:
        return
    if lag is None:
        what = f"with None a replica is read from however far behind; on one more than {pointer:g} s behind users miss their own writes."
        hint = "Set a limit well below POINTER_SECONDS, or silence this check if that is what you want."
        place.inside("MAX_LAG_SECONDS").add(CheckId.LAG_UNLIMITED, what, hint)
        return
    least = lag + cluster.check_interval + LONGEST_REQUEST_SECONDS
    if pointer < least:
        what = f"{pointer:g} s is too short for MAX_LAG_SECONDS = {lag:g}: a write is forgotten while a replica may still lack it."
        hint = f"Set {least:g} or more: the lag, one check interval, and {LONGEST_REQUEST_SECONDS} s for a long request."
        place.inside("POINTER_SECONDS").add(CheckId.POINTER_TOO_SHORT, what, hint)
    least = lag + cluster.check_interval
    if cluster.sticky_seconds < least:
        what = f"{cluster.sticky_seconds:g} s is too short for MAX_LAG_SECONDS = {lag:g}: after it a replica may lack the write."
        place.inside("STICKY_SECONDS").add(CheckId.STICKY_TOO_SHORT, what, f"Set {least:g} or more: the lag, and one check interval.")


def _compare_identities(clusters: Mapping[str, ClusterConfig], place: Place) -> None:
    """A request acts for the same people in every cluster: it is asked once."""
    first = next(iter(clusters.values()), None)
    for primary, cluster in clusters.items():
        if first is not None and cluster.identity != first.identity:
            other = f"{setting_path('PGLB', first.primary, 'IDENTITY')}, {shown(first.identity)}"
            place.inside(primary).inside("IDENTITY").add(
                CheckId.IDENTITIES_DIFFER, f"{shown(cluster.identity)} differs from {other}.", "Set the same for every cluster."
            )
