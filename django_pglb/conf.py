"""Reads the settings, once, into one frozen `Config`. The only module that reads `PGLB` and its like."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .core.config_parser import find_unknown_settings, parse, parse_enabled, parse_task_consistency
from .core.job import Consistency
from .core.pointer_header import parse_pointer_header

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .core.config import Config
    from .core.problem import Problem


# Not under a lock: it might be held by another thread at a fork. Two threads that come first at once read the same settings twice.
@cache
def get_config() -> Config:
    """Return the settings. Any thread may call it, at any time after Django is configured; a second call costs a lookup.

    Raises `ImproperlyConfigured`, naming each setting that is wrong: nothing must run on a misread setting. Not while all is switched
    off: the switch must work whatever state the settings are in.
    """
    config, problems = read()
    if config.enabled:
        refuse(problems)
    return config


def refuse(problems: Iterable[Problem]) -> None:
    """Raise `ImproperlyConfigured` with the words of all errors among `problems`, if there are any."""
    errors = [problem for problem in problems if problem.is_error]
    if errors:
        raise ImproperlyConfigured("\n".join(f"{error.message} {error.hint}".rstrip() for error in errors))


@cache
def get_usable_config() -> Config:
    """Return the settings as far as they are usable, and never raise for what is wrong with them.

    Use `get_config()` unless Django asks while it runs its checks, as `allow_migrate` is asked: an exception there would hide what
    they have to say. No statement may run on it.
    """
    return read()[0]


def reset() -> None:
    """Forget the settings; they are read again when next asked for."""
    get_config.cache_clear()
    get_usable_config.cache_clear()


def is_set() -> bool:
    """Tell whether the project has the `PGLB` setting at all."""
    return hasattr(settings, "PGLB")


def is_enabled() -> bool:
    """Tell whether `PGLB_ENABLED` leaves the package on."""
    return parse_enabled(getattr(settings, "PGLB_ENABLED", True))[0]


def read() -> tuple[Config, tuple[Problem, ...]]:
    """Return the settings as far as they are usable, and what is wrong with them. Reads anew at each call."""
    enabled, problems = parse_enabled(getattr(settings, "PGLB_ENABLED", True))
    raw = getattr(settings, "PGLB", {})
    parsed = partial(parse, raw, debug=bool(settings.DEBUG), database_aliases=tuple(settings.DATABASES))
    # What is switched off is looked at all the same: people switch off first, and on when nothing is wrong any more.
    config, found = parsed(enabled=True)
    header, wrong_header = parse_pointer_header(getattr(settings, "PGLB_POINTER_HEADER", None))
    level, wrong_level = parse_task_consistency(getattr(settings, "PGLB_TASK_CONSISTENCY", Consistency.ALWAYS))
    problems += wrong_header + wrong_level + find_unknown_settings(dir(settings)) + found
    if not enabled:
        return replace(parsed(enabled=False)[0], switched_off=config.clusters), problems
    return replace(config, pointer_header=header, task_consistency=level), problems


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"DATABASES", "DEBUG"} or setting.startswith("PGLB"):
        reset()


# Sent when a test overrides a setting.
setting_changed.connect(_forget, dispatch_uid="django_pglb.conf")
