"""What is wrong with the settings, as data: `checks.py` prints it, `conf.py` refuses to run on it."""

from __future__ import annotations

import difflib
from enum import StrEnum, unique
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# Enough to recognise what one has typed; a value may be anything, and messages end up in logs.
SHOWN_CHARACTERS = 60


@unique
class CheckId(StrEnum):
    """The ids of all problems, public as `django_pglb.E001`: E stops the package, W warns. None is reused or renamed."""

    # The shape of PGLB
    NOT_A_DICT = "E001"
    UNKNOWN_PRIMARY = "E002"
    CLUSTER_NOT_A_DICT = "E003"
    UNKNOWN_KEY = "E004"
    WRONG_TYPE = "E005"
    OUT_OF_RANGE = "E006"
    NOT_A_CHOICE = "E007"
    HEADER_NOT_A_NAME = "E008"
    ENABLED_NOT_A_BOOL = "E009"
    # REPLICAS
    REPLICAS_MISSING = "E010"
    REPLICAS_IS_A_STRING = "E011"
    UNKNOWN_REPLICA = "E012"
    REPLICA_TWICE = "E013"
    REPLICA_IN_TWO_CLUSTERS = "E014"
    REPLICA_IS_A_PRIMARY = "E015"
    REPLICA_IS_ITS_PRIMARY = "E016"
    UNKNOWN_REPLICA_OPTION = "E017"
    # REPLICA_METHODS
    METHODS_IS_A_STRING = "E018"
    METHOD_NOT_UPPER_CASE = "E019"
    METHOD_NOT_A_NAME = "E020"
    # Dotted paths and stores
    NOT_A_DOTTED_PATH = "E021"
    UNKNOWN_STORE_OPTION = "E022"
    IDENTITY_NOT_IMPORTABLE = "E023"
    IDENTITY_NOT_CALLABLE = "E024"
    STORE_NOT_IMPORTABLE = "E025"
    NOT_A_STORE = "E026"
    UNKNOWN_CACHE = "E027"
    CACHE_NOT_ATOMIC = "E028"
    # The rest of the project
    ENGINE_NOT_OURS = "E029"
    MIDDLEWARE_MISSING = "E030"
    MIDDLEWARE_BELOW_SESSIONS = "E031"
    ROUTER_MISSING = "E032"
    IDENTITIES_DIFFER = "E033"
    MONOTONIC_IN_COOKIE = "E034"
    # Jobs
    NO_TASK_LEVEL = "E035"
    # PGLB_POINTER_HEADER
    HEADER_IS_TAKEN = "E036"
    # The page cache
    PAGE_CACHE_ABOVE_MIDDLEWARE = "E037"
    # Other engines, and what is told to sessions
    ENGINE_NOT_HONOURED = "E038"
    PREPARE_NOT_CALLABLE = "E039"
    # The running store
    STORE_REFUSES = "E041"
    SECRETS_DIFFER = "E042"
    # Middleware whose writes bind nobody
    IGNORED_WRITES_WITHOUT_END = "E043"

    NOT_CONFIGURED = "W001"
    POINTER_TOO_SHORT = "W002"
    LAG_UNLIMITED = "W003"
    CACHE_NOT_ATOMIC_IN_DEBUG = "W004"
    ROUTER_NOT_FIRST = "W005"
    NO_TEST_MIRROR = "W006"
    OTHER_NAME = "W007"
    OTHER_SSLMODE = "W008"
    ATOMIC_REQUESTS_ON_REPLICA = "W009"
    STICKY_TOO_SHORT = "W010"
    SAME_SERVER = "W011"
    UNKNOWN_SETTING = "W012"
    STORE_EVICTS = "W013"
    PAGE_CACHE_NOT_OURS = "W014"
    PREPARED_BEHIND_POOLER = "W015"
    READ_TIMEOUT_NEVER_ENDS = "W017"
    STORE_IS_LOCAL = "W019"
    # Other packages
    SWITCHED_OFF = "W024"
    OTHER_TIME_ZONE = "W025"
    OTHER_USER = "W026"
    OTHER_OPTIONS = "W027"
    CACHE_BY_ALIAS = "W029"
    ENGINE_NOT_KNOWN = "W030"
    MIDDLEWARE_WRITES = "W031"
    # What must read the primary
    CACHE_TABLE_ON_REPLICA = "W032"


class Problem(NamedTuple):
    """One thing that is wrong: what, where, and what to do about it."""

    id: CheckId
    message: str
    hint: str = ""

    @property
    def is_error(self) -> bool:
        return self.id.startswith("E")


def setting_path(setting: str, *keys: object) -> str:
    """Return a setting as the user typed it: `PGLB["default"]["REPLICAS"]`."""
    return setting + "".join(f"[{shown(key)}]" for key in keys)


def shown(value: object) -> str:
    """Return `value` as a message may show it: short, and never with what may hold a password."""
    if isinstance(value, str):
        return _shown_text(value)
    if value is None or isinstance(value, bool | int | float):
        text = repr(value) if not isinstance(value, int) or value.bit_length() < 64 else "a huge number"  # repr() refuses the hugest
        return text[:SHOWN_CHARACTERS]
    return kind_of(value)


def kind_of(value: object) -> str:
    """Return what kind of thing `value` is, and nothing of what it holds."""
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def did_you_mean(typed: object, known: Iterable[object]) -> str:
    """Return a question that names the nearest of `known`, as the end of a sentence; empty if none is near."""
    names = {name.lower(): name for name in known if isinstance(name, str)}
    near = difflib.get_close_matches(typed.lower(), names, n=1) if isinstance(typed, str) else []
    return f'; did you mean "{names[near[0]]}"?' if near else ""


def listed(names: Iterable[object]) -> str:
    """Return the names for reading: `"a", "b"`."""
    return ", ".join(shown(name) for name in names) or "none"


def _shown_text(text: str) -> str:
    # A connection string in the place of an alias is a likely slip.
    if "://" in text or "password" in text.lower():
        return '"…" (not shown: it may hold a password)'
    if len(text) > SHOWN_CHARACTERS:
        text = text[: SHOWN_CHARACTERS - 1] + "…"
    return '"' + text.replace("\n", "\\n") + '"'
