"""The keys of a cluster's settings: one table, and how the value of each is read.

A new key is one row here and one field of `ClusterConfig`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .config import StoreConfig
from .problem import CheckId, Problem, did_you_mean, listed, setting_path, shown

if TYPE_CHECKING:
    from collections.abc import Callable

# Nearly ten years. More is a slip of unit, and some timers overflow not far beyond.
MOST_SECONDS: Final = 300_000_000
MOST_WEIGHT: Final = 1_000_000
MOST_ATTEMPTS: Final = 1000
MOST_READS: Final = 1_000_000

# RFC 9110, section 5.6.2, without lower case: Django's `request.method` is upper-case.
_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]+")


class Default(Enum):
    """What a reader returns when it could not use the value: the field keeps its default."""

    DEFAULT = "default"


DEFAULT: Final = Default.DEFAULT


class Place(NamedTuple):
    """A setting as the user typed it, and where to put what is wrong with it."""

    path: str
    problems: list[Problem]

    def inside(self, key: object) -> Place:
        return self._replace(path=setting_path(self.path, key))

    def add(self, check: CheckId, what: str, hint: str = "") -> Default:
        """Note that something is wrong here."""
        self.problems.append(Problem(check, f"{self.path}: {what}", hint))
        return DEFAULT

    def wrong_type(self, wanted: str, value: object, hint: str = "") -> Default:
        return self.add(CheckId.WRONG_TYPE, f"must be {wanted}, not {shown(value)}.", hint)


if TYPE_CHECKING:
    Reader = Callable[[object, Place], Any]


class Key(NamedTuple):
    """One key of a cluster's settings: its name, the field that it fills, and how its value is read."""

    name: str
    field: str
    read: Reader


# --- Readers: each returns the value for the field, or DEFAULT after it has noted what is wrong ---


def seconds(*, zero: bool = False, none: bool = False) -> Reader:
    """Read a number of seconds above 0; 0 and None only where they mean something."""
    return number("seconds", most=MOST_SECONDS, zero=zero, none=none)


def number(unit: str, *, most: float, zero: bool = False, none: bool = False) -> Reader:
    wanted = f"a number of {unit}" + (" or None" if none else "")
    limits = f"{'0' if zero else 'more than 0'} {'to' if zero else 'and at most'} {most:,} {unit}"

    def read(value: object, place: Place) -> float | Default | None:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return place.wrong_type(wanted, value, _how_to_convert(value))
        # Written so that NaN, which compares false with everything, is refused too.
        if not ((0 < value <= most) or (zero and value == 0)):
            return place.add(CheckId.OUT_OF_RANGE, f"must be {limits}, not {shown(value)}.")
        return value

    return read


def count(*, least: int, most: int, none: bool = False) -> Reader:
    def read(value: object, place: Place) -> int | Default | None:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            return place.wrong_type("a whole number" + (" or None" if none else ""), value, _how_to_convert(value))
        if not least <= value <= most:
            return place.add(CheckId.OUT_OF_RANGE, f"must be {least} to {most}, not {shown(value)}.")
        return value

    return read


def yes_or_no(value: object, place: Place) -> bool | Default:
    if isinstance(value, bool):
        return value
    return place.wrong_type("True or False", value, HOW_TO_CONVERT_BOOL if isinstance(value, str) else "")


def choice(*choices: str) -> Reader:
    def read(value: object, place: Place) -> str | Default:
        if not isinstance(value, str):
            return place.wrong_type(f"one of {listed(choices)}", value)
        if value not in choices:
            guess = did_you_mean(value, choices) or "."
            return place.add(CheckId.NOT_A_CHOICE, f"{shown(value)} is not a choice{guess}", f"Choose one of {listed(choices)}.")
        return value

    return read


def dotted_path(value: object, place: Place) -> str | Default:
    if not isinstance(value, str):
        return place.wrong_type("a dotted path (a string)", value, "Name it as text, so that settings import nothing.")
    if "." not in value or not all(part.isidentifier() for part in value.split(".")):
        return place.add(CheckId.NOT_A_DOTTED_PATH, f"{shown(value)} is not a dotted path.", 'Write it as in "package.module.name".')
    return value


def dotted_path_or_none(value: object, place: Place) -> str | Default | None:
    return None if value is None else dotted_path(value, place)


def methods(value: object, place: Place) -> frozenset[str] | Default:
    if isinstance(value, str):
        return place.add(CheckId.METHODS_IS_A_STRING, f"is one string, {shown(value)}; it must be a list.", f"Write [{shown(value)}].")
    if not isinstance(value, list | tuple | set | frozenset):
        return place.wrong_type("a list of method names", value)
    good = [name for name in value if _method(name, place)]
    return frozenset(good) if len(good) == len(value) else DEFAULT


def store(value: object, place: Place) -> StoreConfig | Default:
    """Read `STORE`. Options of our own stores are checked by name; those of others are theirs to check."""
    if not isinstance(value, dict):
        hint = f'Write {{"BACKEND": {shown(value)}}}.' if isinstance(value, str) else 'Write it as in {"CACHE": "default"}.'
        return place.wrong_type("a dict", value, hint)
    backend = dotted_path(value["BACKEND"], place.inside("BACKEND")) if "BACKEND" in value else StoreConfig().backend
    if isinstance(backend, Default):
        return DEFAULT
    options = {name: option for name, option in value.items() if name != "BACKEND" and _store_option(name, option, backend, place)}
    defaults = StoreConfig().options if backend == StoreConfig().backend else {}
    return StoreConfig(backend=backend, options={**defaults, **{name.lower(): option for name, option in options.items()}})


# --- The table ---

KEYS: Final = (
    Key("PREPARE", "prepare", dotted_path_or_none),
    Key("CONSISTENCY", "consistency", choice("read_your_writes", "monotonic", "eventual")),
    Key("POINTER_SECONDS", "pointer_seconds", seconds()),
    Key("STICKY_SECONDS", "sticky_seconds", seconds()),
    Key("MAX_LAG_SECONDS", "max_lag_seconds", seconds(none=True)),
    Key("CHECK_INTERVAL", "check_interval", seconds()),
    Key("CHECK_TIMEOUT", "check_timeout", seconds()),
    Key("WAIT_SECONDS", "wait_seconds", seconds(zero=True)),
    Key("READ_TIMEOUT", "read_timeout", seconds(none=True)),
    Key("REPLICA_METHODS", "replica_methods", methods),
    Key("STORE", "store", store),
    Key("COOKIE", "cookie", yes_or_no),
    Key("ON_STORE_ERROR", "on_store_error", choice("primary", "replica")),
    Key("IDENTITY", "identity", dotted_path),
    Key("PRIMARY_ATTEMPTS", "primary_attempts", count(least=1, most=MOST_ATTEMPTS)),
    Key("PRIMARY_BACKOFF", "primary_backoff", seconds(zero=True)),
    Key("PRIMARY_FALLBACK_LIMIT", "primary_fallback_limit", count(least=1, most=MOST_READS, none=True)),
    Key("GUARD_STALE_SAVES", "guard_stale_saves", choice("off", "warn", "raise")),
    Key("DEBUG_HEADER", "debug_header", yes_or_no),
)

# Options of one replica in the dict form of REPLICAS.
REPLICA_KEYS: Final = (
    Key("WEIGHT", "weight", number("shares", most=MOST_WEIGHT)),
    Key("POOLED", "pooled", yes_or_no),
)

REPLICAS: Final = "REPLICAS"
KEY_NAMES: Final = (REPLICAS, *(key.name for key in KEYS))

KNOWN_SETTINGS: Final = ("PGLB", "PGLB_ENABLED", "PGLB_POINTER_HEADER", "PGLB_TASK_CONSISTENCY")

# The options of our own stores, which others may extend.
STORE_OPTIONS: Final = {"django_pglb.stores.CacheStore": ("CACHE",), "django_pglb.stores.CookieStore": ()}

HOW_TO_CONVERT_BOOL: Final = (
    'Text from the environment is true even if it says "0" or "false". Convert it: os.environ.get("…", "1") == "1".'
)


def _how_to_convert(value: object) -> str:
    if isinstance(value, timedelta):
        return "Write timedelta(…).total_seconds()."
    return "Text from the environment must be converted: float(…) or int(…)." if isinstance(value, str) else ""


def _method(name: object, place: Place) -> bool:
    if not isinstance(name, str):
        place.wrong_type("a list of method names", name)
    elif name != name.upper():
        place.add(
            CheckId.METHOD_NOT_UPPER_CASE, f"{shown(name)} matches no request: methods are upper-case.", f"Write {shown(name.upper())}."
        )
    elif not _METHOD.fullmatch(name):
        place.add(CheckId.METHOD_NOT_A_NAME, f"{shown(name)} is not the name of an HTTP method.")
    else:
        return True
    return False


def _store_option(name: object, value: object, backend: str, place: Place) -> bool:
    known = STORE_OPTIONS.get(backend)
    if not isinstance(name, str) or (known is not None and name not in known):
        guess = did_you_mean(name, ("BACKEND", *(known or ()))) or f" of {backend}."
        place.inside(name).add(CheckId.UNKNOWN_STORE_OPTION, f"unknown option{guess}", f"Known are {listed(('BACKEND', *(known or ())))}.")
        return False
    if known is not None and not isinstance(value, str):
        place.inside(name).wrong_type("an alias in CACHES", value)
        return False
    return True
