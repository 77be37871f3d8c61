"""System checks: everything around the package that a project can get wrong, found before it runs. They open no connection."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend
from django.utils.module_loading import import_string

from . import conf
from .core.problem import CheckId, Problem, did_you_mean, listed, setting_path, shown
from .middleware import LoadBalancingMiddleware
from .routers import ReplicaRouter
from .stores import CacheStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.apps import AppConfig

    from .core.config import ClusterConfig

# `manage.py check --tag django_pglb` runs these alone.
TAG = "django_pglb"

OUR_MIDDLEWARE = "django_pglb.middleware.LoadBalancingMiddleware"
OUR_ROUTER = "django_pglb.routers.ReplicaRouter"
SESSION_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
ATOMIC_CACHE = "django_redis.cache.RedisCache"


def check(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong, as Django's `check` prints it."""
    return [_message(problem) for problem in find_problems()]


def find_problems() -> Iterator[Problem]:
    """Find all that is wrong; nothing about the rest of the project while there is no cluster, or all is switched off."""
    config, problems = conf.read()
    yield from problems
    if config.enabled and not conf.is_set():
        hint = (
            'Name the primary and its replicas: PGLB = {"default": {"REPLICAS": ["replica1"]}}. Or take django_pglb out of INSTALLED_APPS.'
        )
        yield Problem(CheckId.NOT_CONFIGURED, "PGLB: not set, so all reads go to the primary.", hint)
    for cluster in config.clusters.values():
        yield from _engine_problems(cluster)
        yield from _replica_problems(cluster)
        yield from _identity_problems(cluster)
        yield from _store_problems(cluster)
    if config.clusters:
        yield from _middleware_problems()
        yield from _router_problems()


def _message(problem: Problem) -> checks.CheckMessage:
    level = checks.ERROR if problem.is_error else checks.WARNING
    return checks.CheckMessage(level, problem.message, hint=problem.hint or None, id=f"django_pglb.{problem.id}")


# --- DATABASES ---


def _engine_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    """Every alias of a cluster needs our engine: it sees writes on the primary, and proves and fails over on the replicas."""
    for alias in cluster.aliases:
        engine = str(settings.DATABASES[alias].get("ENGINE", ""))
        why_not = _why_engine_is_not_ours(engine)
        if why_not:
            ours = "django_pglb.backends." + ("postgis" if "gis" in engine else "postgresql")
            hint = f'Write "{ours}", or mix django_pglb.backends.mixin.LoadBalancedMixin into the DatabaseWrapper of your own engine.'
            yield Problem(CheckId.ENGINE_NOT_OURS, f"{setting_path('DATABASES', alias, 'ENGINE')}: {why_not}.", hint)


def _why_engine_is_not_ours(engine: str) -> str:
    if not engine:
        return "not set"
    try:
        wrapper = getattr(load_backend(engine), "DatabaseWrapper", None)
    except (ImportError, ImproperlyConfigured) as error:
        return f"{shown(engine)} cannot be loaded ({_first_line(error)})"
    return "" if getattr(wrapper, "pglb_capable", False) else f"{shown(engine)} is not an engine of django-pglb"


def _replica_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    primary = settings.DATABASES[cluster.primary]
    for replica in cluster.replicas:
        alias, options = replica.alias, settings.DATABASES[replica.alias]
        yield from _mirror_problems(alias, options, cluster.primary)
        if options.get("ATOMIC_REQUESTS"):
            message = f"{setting_path('DATABASES', alias, 'ATOMIC_REQUESTS')}: opens a transaction on the replica for every request."
            yield Problem(CheckId.ATOMIC_REQUESTS_ON_REPLICA, message, "Set it on the primary only.")
        # In front of a pooler both belong to the pooler, which has names of its own and is often reached without TLS on the same machine.
        if not replica.pooled:
            yield from _difference_problems(alias, options, cluster.primary, primary)


def _mirror_problems(alias: str, options: dict[str, Any], primary: str) -> Iterator[Problem]:
    mirror = (options.get("TEST") or {}).get("MIRROR")
    if mirror != primary:
        path = setting_path("DATABASES", alias, "TEST", "MIRROR")
        what = "not set" if mirror is None else f"is {shown(mirror)}, not this replica's primary"
        hint = f'Set "TEST": {{"MIRROR": "{primary}"}}. Without it your tests create a separate, empty database for the replica.'
        yield Problem(CheckId.NO_TEST_MIRROR, f"{path}: {what}.", hint)


def _difference_problems(alias: str, replica: dict[str, Any], primary_alias: str, primary: dict[str, Any]) -> Iterator[Problem]:
    names = replica.get("NAME"), primary.get("NAME")
    if all(names) and names[0] != names[1]:
        message = f"{setting_path('DATABASES', alias, 'NAME')}: {shown(names[0])} is not the primary's database, {shown(names[1])}."
        yield Problem(CheckId.OTHER_NAME, message, "A streaming replica has the databases of its primary, under the same names.")
    modes = _sslmode(replica), _sslmode(primary)
    if all(modes) and modes[0] != modes[1]:
        path = setting_path("DATABASES", alias, "OPTIONS", "sslmode")
        message = f"{path}: {shown(modes[0])}, but {shown(modes[1])} on {shown(primary_alias)}."
        yield Problem(CheckId.OTHER_SSLMODE, message, "The same rows travel to both: set the stricter mode on both.")


def _sslmode(options: dict[str, Any]) -> str | None:
    """Return the mode of a TCP connection; None where there is none, or a service file says."""
    connect = options.get("OPTIONS") or {}
    host = str(options.get("HOST") or "/")
    # Unix sockets, by path or in the abstract namespace.
    if host.startswith(("/", "@")) or "service" in connect:
        return None
    # libpq's own default.
    return str(connect.get("sslmode", "prefer"))


# --- Dotted paths ---


def _identity_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    path = setting_path("PGLB", cluster.primary, "IDENTITY")
    found, why_not = _imported(cluster.identity)
    if why_not:
        yield Problem(CheckId.IDENTITY_NOT_IMPORTABLE, f"{path}: {shown(cluster.identity)} cannot be imported ({why_not}).")
    elif not callable(found):
        hint = "Name a function that takes the request and returns (kind, value) pairs."
        yield Problem(CheckId.IDENTITY_NOT_CALLABLE, f"{path}: {shown(cluster.identity)} cannot be called, it is {shown(found)}.", hint)


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
        if issubclass(store, CacheStore):
            yield from _cache_problems(cluster.store.options.get("cache", "default"), path)


def _store_option_problems(cluster: ClusterConfig, store: Callable[..., Any], path: str) -> Iterator[Problem]:
    try:
        inspect.signature(store).bind(pointer_seconds=cluster.pointer_seconds, **cluster.store.options)
    except TypeError as error:
        message = f"{path}: {shown(cluster.store.backend)} does not take these options ({_first_line(error)})."
        yield Problem(CheckId.UNKNOWN_STORE_OPTION, message, "Options are passed in lower case.")


# --- CACHES ---


def _cache_problems(alias: str, path: str) -> Iterator[Problem]:
    if alias not in settings.CACHES:
        guess = did_you_mean(alias, settings.CACHES) or "."
        message = f'{path}["CACHE"]: {shown(alias)} is not an alias in CACHES{guess}'
        yield Problem(CheckId.UNKNOWN_CACHE, message, f"CACHES has {listed(settings.CACHES)}.")
        return
    backend = settings.CACHES[alias].get("BACKEND", "")
    if not _is_or_extends(backend, ATOMIC_CACHE, import_string(ATOMIC_CACHE)):
        # On a developer's machine one process serves, and a lost pointer costs nobody's data.
        check_id = CheckId.CACHE_NOT_ATOMIC_IN_DEBUG if settings.DEBUG else CheckId.CACHE_NOT_ATOMIC
        message = (
            f'{path}["CACHE"]: {shown(alias)} is {shown(backend)}, where concurrent requests of one user can lose a write\'s position.'
        )
        hint = f'Name a cache with "BACKEND": "{ATOMIC_CACHE}", or use the store django_pglb.stores.CookieStore.'
        yield Problem(check_id, message, hint)


# --- MIDDLEWARE and DATABASE_ROUTERS ---


def _middleware_problems() -> Iterator[Problem]:
    paths = list(settings.MIDDLEWARE or ())
    ours = _first_index(paths, OUR_MIDDLEWARE, LoadBalancingMiddleware)
    sessions = _first_index(paths, SESSION_MIDDLEWARE, SessionMiddleware)
    if ours is None:
        message = "MIDDLEWARE: LoadBalancingMiddleware is missing, so no request reads from a replica and none remembers what it wrote."
        yield Problem(CheckId.MIDDLEWARE_MISSING, message, f'Put "{OUR_MIDDLEWARE}" first.')
    elif sessions is not None and sessions < ours:
        message = (
            f"MIDDLEWARE: {shown(paths[ours])} is below {shown(paths[sessions])}, which saves the session after the pointer was taken."
        )
        yield Problem(CheckId.MIDDLEWARE_BELOW_SESSIONS, message, "Put it first, or at least above the session middleware.")


def _router_problems() -> Iterator[Problem]:
    routers = list(settings.DATABASE_ROUTERS)
    index = _first_index(routers, OUR_ROUTER, ReplicaRouter)
    if index is None:
        message = "DATABASE_ROUTERS: ReplicaRouter is missing, so no query of the ORM goes to a replica."
        yield Problem(CheckId.ROUTER_MISSING, message, f'Put "{OUR_ROUTER}" first.')
    elif index > 0:
        above = routers[0] if isinstance(routers[0], str) else type(routers[0]).__qualname__
        message = f"DATABASE_ROUTERS: ReplicaRouter is below {shown(above)}, whose answers it never sees and which may send reads past it."
        yield Problem(CheckId.ROUTER_NOT_FIRST, message, "Put it first. It asks the others which database owns a model.")


# --- Importing what settings name ---


def _first_index(entries: Sequence[object], path: str, wanted: type) -> int | None:
    return next((index for index, entry in enumerate(entries) if _is_or_extends(entry, path, wanted)), None)


def _is_or_extends(entry: object, path: str, wanted: type) -> bool:
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
