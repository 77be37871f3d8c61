"""What the settings name by a dotted path or an alias: whether it is there, and is what it must be."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend
from django.utils.module_loading import import_string

from .core.problem import CheckId, Problem, did_you_mean, listed, setting_path, shown
from .stores import CacheStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .core.config import ClusterConfig

ATOMIC_CACHE = "django_redis.cache.RedisCache"
# Each process has one of its own, or nobody has any.
UNSHARED_CACHES = ("django.core.cache.backends.locmem.LocMemCache", "django.core.cache.backends.dummy.DummyCache")


def broken_references(cluster: ClusterConfig) -> Iterator[Problem]:
    """Find what a cluster's settings name in vain. Opens no connection."""
    yield from engine_problems(cluster)
    yield from _identity_problems(cluster)
    yield from _prepare_problems(cluster)
    yield from _store_problems(cluster)


def engine_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    """Every alias of a cluster needs our engine: it sees writes on the primary, and proves and fails over on the replicas."""
    for alias in cluster.aliases:
        engine = str(settings.DATABASES[alias].get("ENGINE", ""))
        why_not = _why_engine_is_not_ours(engine)
        if why_not:
            ours = "django_pglb.backends." + ("postgis" if "gis" in engine else "postgresql")
            hint = f'Write "{ours}", or mix django_pglb.backends.mixin.LoadBalancedMixin into the DatabaseWrapper of your own engine.'
            yield Problem(CheckId.ENGINE_NOT_OURS, f"{setting_path('DATABASES', alias, 'ENGINE')}: {why_not}.", hint)
        else:
            yield from _layer_problems(cluster, alias, engine)


def _layer_problems(cluster: ClusterConfig, alias: str, engine: str) -> Iterator[Problem]:
    """What another engine does when a cursor is opened must happen on every host."""
    path, wrapper = setting_path("DATABASES", alias, "ENGINE"), load_backend(engine).DatabaseWrapper
    why_not = wrapper.pglb_why_not_honoured()
    if why_not:
        hint = "Write class DatabaseWrapper(LoadBalancedMixin, YourWrapper), and override methods in classes only."
        yield Problem(CheckId.ENGINE_NOT_HONOURED, f"{path}: {shown(engine)}: {why_not}.", hint)
        return
    primary = str(settings.DATABASES[cluster.primary].get("ENGINE", ""))
    if alias == cluster.primary or _why_engine_is_not_ours(primary):
        return
    others = wrapper.pglb_layers ^ load_backend(primary).DatabaseWrapper.pglb_layers
    if others:
        names = " and ".join(sorted({f"{name}()" for name, _ in others}))
        message = f"{path}: {shown(engine)} does something else in {names} than {shown(primary)} of {shown(cluster.primary)}."
        yield Problem(CheckId.ENGINE_NOT_HONOURED, message, "Give all aliases of the cluster the same engine.")


def _why_engine_is_not_ours(engine: str) -> str:
    if not engine:
        return "not set"
    try:
        wrapper = getattr(load_backend(engine), "DatabaseWrapper", None)
    except (ImportError, ImproperlyConfigured) as error:
        return f"{shown(engine)} cannot be loaded ({_first_line(error)})"
    return "" if getattr(wrapper, "pglb_capable", False) else f"{shown(engine)} is not an engine of django-pglb"


def _identity_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    path = setting_path("PGLB", cluster.primary, "IDENTITY")
    found, why_not = _imported(cluster.identity)
    if why_not:
        yield Problem(CheckId.IDENTITY_NOT_IMPORTABLE, f"{path}: {shown(cluster.identity)} cannot be imported ({why_not}).")
    elif not callable(found):
        hint = "Name a function that takes the request and returns (kind, value) pairs."
        yield Problem(CheckId.IDENTITY_NOT_CALLABLE, f"{path}: {shown(cluster.identity)} cannot be called, it is {shown(found)}.", hint)


def _prepare_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    if cluster.prepare is None:
        return
    path, hint = setting_path("PGLB", cluster.primary, "PREPARE"), "Name a function that takes psycopg's connection."
    found, why_not = _imported(cluster.prepare)
    if why_not:
        yield Problem(CheckId.PREPARE_NOT_CALLABLE, f"{path}: {shown(cluster.prepare)} cannot be imported ({why_not}).", hint)
    elif not callable(found):
        yield Problem(CheckId.PREPARE_NOT_CALLABLE, f"{path}: {shown(cluster.prepare)} cannot be called, it is {shown(found)}.", hint)
    elif inspect.iscoroutinefunction(found):
        yield Problem(CheckId.PREPARE_NOT_CALLABLE, f"{path}: {shown(cluster.prepare)} is a coroutine function: nobody awaits it.", hint)
    for replica in cluster.replicas:
        if replica.pooled:
            message = f"{path}: a pooler behind {shown(replica.alias)} may hand a session that was prepared to anybody else."
            yield Problem(CheckId.PREPARED_BEHIND_POOLER, message, "Pool sessions there, or connect directly.")


def _store_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    path, backend = setting_path("PGLB", cluster.primary, "STORE"), cluster.store.backend
    store, why_not = _imported(backend)
    if why_not:
        yield Problem(CheckId.STORE_NOT_IMPORTABLE, f'{path}["BACKEND"]: {shown(backend)} cannot be imported ({why_not}).')
    elif not (isinstance(store, type) and issubclass(store, Store)):
        hint = "Name django_pglb.stores.CacheStore, django_pglb.stores.CookieStore, or a subclass of django_pglb.stores.Store."
        yield Problem(CheckId.NOT_A_STORE, f'{path}["BACKEND"]: {shown(backend)} is not a store.', hint)
    else:
        yield from _store_option_problems(cluster, store, path)
        if store.binds_by_cookie and cluster.consistency == "monotonic":
            consistency = setting_path("PGLB", cluster.primary, "CONSISTENCY")
            message = f'{consistency}: "monotonic" needs a store that all pages of a user share; in a cookie they overwrite each other.'
            yield Problem(CheckId.MONOTONIC_IN_COOKIE, message, 'Use django_pglb.stores.CacheStore, or "read_your_writes".')
        if issubclass(store, CacheStore):
            yield from _cache_problems(cluster.store.options.get("cache", "default"), path)


def _store_option_problems(cluster: ClusterConfig, store: Callable[..., Any], path: str) -> Iterator[Problem]:
    try:
        inspect.signature(store).bind(pointer_seconds=cluster.pointer_seconds, **cluster.store.options)
    except TypeError as error:
        message = f"{path}: {shown(cluster.store.backend)} does not take these options ({_first_line(error)})."
        yield Problem(CheckId.UNKNOWN_STORE_OPTION, message, "Options are passed in lower case.")


def _cache_problems(alias: str, path: str) -> Iterator[Problem]:
    if alias not in settings.CACHES:
        guess = did_you_mean(alias, settings.CACHES) or "."
        message = f'{path}["CACHE"]: {shown(alias)} is not an alias in CACHES{guess}'
        yield Problem(CheckId.UNKNOWN_CACHE, message, f"CACHES has {listed(settings.CACHES)}.")
        return
    backend = settings.CACHES[alias].get("BACKEND", "")
    if not is_or_extends(backend, ATOMIC_CACHE, import_string(ATOMIC_CACHE)):
        # On a developer's machine one process serves, and a lost pointer costs nobody's data.
        check_id = CheckId.CACHE_NOT_ATOMIC_IN_DEBUG if settings.DEBUG else CheckId.CACHE_NOT_ATOMIC
        if _is_shared(backend):
            harm = "where concurrent requests of one user can lose a write's position"
        else:
            harm = "which other processes cannot read: they miss what was written"
        message = f'{path}["CACHE"]: {shown(alias)} is {shown(backend)}, {harm}.'
        hint = f'Name a cache with "BACKEND": "{ATOMIC_CACHE}", or use the store django_pglb.stores.CookieStore.'
        yield Problem(check_id, message, hint)


def has_shared_store(cluster: ClusterConfig) -> bool:
    """Say whether other processes can read what this one saves. The settings must be right apart from that."""
    store, _ = _imported(cluster.store.backend)
    if not (isinstance(store, type) and issubclass(store, CacheStore)):
        return True
    entry = settings.CACHES.get(cluster.store.options.get("cache", "default"))
    return entry is None or _is_shared(entry.get("BACKEND", ""))


def _is_shared(backend: object) -> bool:
    return not any(is_or_extends(backend, path, import_string(path)) for path in UNSHARED_CACHES)


def is_or_extends(entry: object, path: str, wanted: type) -> bool:
    """Tell whether `entry` (a dotted path, or an instance in its place) is the class `wanted`, known as `path`, or extends it."""
    if not isinstance(entry, str):
        return isinstance(entry, wanted)
    if entry == path:
        return True
    found, _ = _imported(entry)
    return isinstance(found, type) and issubclass(found, wanted)


def _imported(path: str) -> tuple[object, str]:
    """Return what `path` names, or why it cannot be imported."""
    try:
        return import_string(path), ""
    except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported, and one bad path must not hide the rest
        return None, _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
