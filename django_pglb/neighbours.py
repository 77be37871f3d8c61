"""Well-known packages that need a setting beside this one, and what else must be read from the primary: data for the checks.

Only what is certain is said. A package is known by the name of its app or the path of its middleware; nothing of it is imported, but for
the routers of the project, which tell where they send the reads of a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.db import DEFAULT_DB_ALIAS, router

from .core.problem import CheckId, Problem, listed, setting_path, shown
from .ignored_writes import BEGIN, END, OURS, Begin, End
from .middleware import LoadBalancingMiddleware
from .references import is_or_extends
from .routers import ReplicaRouter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .core.config import Config

# Middleware that saves a row for itself in most requests, and the package that it is of.
WRITERS: Final = {
    "silk.middleware.SilkyMiddleware": "django-silk",
    "request.middleware.RequestMiddleware": "django-request",
    "tracking.middleware.VisitorTrackingMiddleware": "django-tracking2",
    "user_visit.middleware.UserVisitMiddleware": "django-user-visit",
    "online_users.middleware.OnlineNowMiddleware": "django-online-users",
}
CACHE_TABLE: Final = "django.core.cache.backends.db.DatabaseCache"
PAGE = "docs/working-with-other-packages.md has more."
ROUTER_HINT = "Put a router above ReplicaRouter whose db_for_read() names the primary for them: docs/what-must-read-the-primary.md has one."
WAFFLE: Final = (
    "WAFFLE_READ_FROM_WRITE_DB: not set, so django-waffle may cache a switch or flag from a replica that lacks what was just written, "
    "and then it acts late by as long as the cache lives."
)


class EngineList(NamedTuple):
    """A package that knows engines by their names, and the setting that takes further ones."""

    package: str
    setting: str
    without: str
    """What it does with an engine that it does not know."""


ENGINE_LISTS: Final = {
    "dbbackup": EngineList("django-dbbackup", "DBBACKUP_CONNECTOR_MAPPING", "backs up by dumpdata instead of pg_dump"),
    "django_extensions": EngineList(
        "django-extensions", "DJANGO_EXTENSIONS_RESET_DB_POSTGRESQL_ENGINES", "refuses its commands reset_db, sqldsn, sqlcreate and others"
    ),
}


def find_problems(config: Config, installed: Collection[str], middleware: Sequence[object]) -> Iterator[Problem]:
    """Find what `installed` apps and `middleware` need, and which tables must be read from the primary and are not."""
    if not config.replicas:
        return
    yield from _writer_problems(middleware)
    if "cachalot" in installed and getattr(settings, "CACHALOT_ENABLED", True):
        yield from _cachalot_problems(config)
    if "cacheops" in installed and getattr(settings, "CACHEOPS_ENABLED", True):
        yield from _cacheops_problems(config)
    if "waffle" in installed and not getattr(settings, "WAFFLE_READ_FROM_WRITE_DB", False):
        yield Problem(CheckId.CACHE_BY_ALIAS, WAFFLE, "Set it to True.")
    yield from _engine_list_problems(config, installed)
    yield from _cache_table_problems(config)


def send_some_reads_to_primaries(above: Sequence[Any], config: Config) -> bool:
    """Say whether all routers `above` ours are there to send the reads of some models to a primary, and of the others nowhere."""
    models = (*apps.get_models(), *_cache_tables().values())
    for each in above:
        answers = {_read_from(each, model) for model in models}
        if not (None in answers and len(answers) > 1 and answers <= {None, *config.clusters}):
            return False
    return True


def _read_from(router_: Any, model: Any) -> str | None:
    ask = getattr(router_, "db_for_read", None)
    try:
        return None if ask is None else ask(model) or None
    except Exception:  # noqa: BLE001 - it may be asked about a model, or a cache's table, that it never meets while the project runs
        return None


def _writer_problems(middleware: Sequence[object]) -> Iterator[Problem]:
    """Above our middleware no unit of work is open, and between `Begin` and `End` writes bind nobody: there they do no harm."""
    counts = False
    for path in middleware:
        if is_or_extends(path, OURS, LoadBalancingMiddleware) or is_or_extends(path, END, End):
            counts = True
        elif is_or_extends(path, BEGIN, Begin):
            counts = False
        elif counts and isinstance(path, str) and path in WRITERS:
            message = f"MIDDLEWARE: {shown(path)} of {WRITERS[path]} writes in each request, so each page is read from the primary."
            yield Problem(CheckId.MIDDLEWARE_WRITES, message, f'Put it between "{BEGIN}" and "{END}". {PAGE}')


# --- Caches of the ORM ---


def _cachalot_problems(config: Config) -> Iterator[Problem]:
    cached = _cached_by_cachalot()
    replicas = [alias for alias in config.replicas if alias in cached]
    primaries = [primary for primary in config.clusters if primary not in cached]
    engines = listed(sorted({str(settings.DATABASES[primary].get("ENGINE")) for primary in config.clusters}))
    hint = f"Set CACHALOT_DATABASES to the primaries only, [{listed(config.clusters)}], "
    hint += f"and CACHALOT_ADDITIONAL_SUPPORTED_DATABASES to {{{engines}}}. {PAGE}"
    if replicas:
        message = (
            f"CACHALOT_DATABASES: django-cachalot caches what is read by {listed(replicas)}, and no write reaches that: "
            f"it invalidates by alias, and all are written by {listed(config.clusters)}."
        )
        yield Problem(CheckId.CACHE_BY_ALIAS, message, hint)
    elif primaries:
        message = f"CACHALOT_DATABASES: django-cachalot does not know the engine of {listed(primaries)}, so it caches nothing."
        yield Problem(CheckId.ENGINE_NOT_KNOWN, message, hint)


def _cached_by_cachalot() -> set[str]:
    named = getattr(settings, "CACHALOT_DATABASES", "supported_only")
    if not isinstance(named, str):
        return set(named)
    if getattr(settings, "CACHALOT_USE_UNSUPPORTED_DATABASE", False):
        return set(settings.DATABASES)
    known = getattr(settings, "CACHALOT_ADDITIONAL_SUPPORTED_DATABASES", ())
    return {alias for alias, options in settings.DATABASES.items() if options.get("ENGINE") in known}


def _cacheops_problems(config: Config) -> Iterator[Problem]:
    profiles = {str(name).lower(): profile for name, profile in (getattr(settings, "CACHEOPS", None) or {}).items()}
    cached = [model for model in apps.get_models() if _cacheops_profile(model, profiles) is not None]
    late = sorted(model._meta.label for model in cached if _is_read_from_replicas(model, config))
    if late:
        message = (
            f"CACHEOPS: {_first_few(late)} may be cached from a replica that lacks what was just written, and then "
            "the writer misses it for as long as the cache lives."
        )
        yield Problem(CheckId.CACHE_BY_ALIAS, message, ROUTER_HINT)


def _cacheops_profile(model: Any, profiles: dict[str, Any]) -> Any:
    label, app = model._meta.label_lower, model._meta.app_label.lower()
    name = next((name for name in (label, f"{app}.*", "*.*") if name in profiles), None)
    return None if name is None else profiles[name]


# --- Others ---


def _engine_list_problems(config: Config, installed: Collection[str]) -> Iterator[Problem]:
    for app, known in ENGINE_LISTS.items():
        engines = {str(settings.DATABASES[primary].get("ENGINE")) for primary in config.clusters}
        unknown = sorted(engines.difference(getattr(settings, known.setting, None) or ()))
        if app in installed and unknown and not _is_named_otherwise(app, config):
            message = f"{known.setting}: {known.package} does not know {listed(unknown)}, and {known.without}."
            yield Problem(CheckId.ENGINE_NOT_KNOWN, message, f"Name it there as you would Django's own. {PAGE}")


def _is_named_otherwise(app: str, config: Config) -> bool:
    named = getattr(settings, "DBBACKUP_CONNECTORS", None) or {}
    return app == "dbbackup" and all("CONNECTOR" in named.get(primary, {}) for primary in config.clusters)


def _cache_table_problems(config: Config) -> Iterator[Problem]:
    for alias, model in _cache_tables().items():
        if _is_read_from_replicas(model, config):
            message = (
                f"{setting_path('CACHES', alias)}: the table of this cache is read from replicas, so a counter, a lock or a "
                "one-time code in it may be used again while they are behind."
            )
            yield Problem(CheckId.CACHE_TABLE_ON_REPLICA, message, ROUTER_HINT)


def _cache_tables() -> dict[str, Any]:
    """Return what stands for a model in the caches that live in a database."""
    tables = [alias for alias, options in settings.CACHES.items() if is_or_extends(options.get("BACKEND"), CACHE_TABLE, BaseDatabaseCache)]
    return {alias: caches[alias].cache_model_class for alias in tables}  # type: ignore[attr-defined]


def _is_read_from_replicas(model: Any, config: Config) -> bool:
    ours = next((index for index, each in enumerate(router.routers) if isinstance(each, ReplicaRouter)), None)
    if ours is None:
        return False
    others = [each for each in router.routers if hasattr(each, "db_for_write") and not isinstance(each, ReplicaRouter)]
    owner = next(filter(None, (each.db_for_write(model) for each in others)), DEFAULT_DB_ALIAS)
    cluster = config.clusters.get(config.primary_of.get(owner, ""))
    if cluster is None or not cluster.replicas:
        return False
    return not any(_read_from(above, model) == cluster.primary for above in router.routers[:ours])


def _first_few(names: Sequence[str]) -> str:
    shown_names = ", ".join(names[:3])
    return shown_names if len(names) <= 3 else f"{shown_names} and {len(names) - 3} other models"
