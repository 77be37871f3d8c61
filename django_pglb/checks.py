"""System checks: everything around the package that a project can get wrong, found before it runs.

They open no connection, but for the one of `--deploy` that asks the stores.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.db import router
from django.middleware.cache import FetchFromCacheMiddleware

from . import conf, ignored_writes, neighbours, page_cache
from .core.likeness import find_differences
from .core.problem import CheckId, Problem, setting_path, shown
from .engine import MIRROR_OF
from .health.report import STORE_REFUSING
from .middleware import LoadBalancingMiddleware
from .references import broken_references, is_or_extends
from .routers import ReplicaRouter
from .stores import look_at_store
from .stores.locality import LOCAL
from .stores.peers import DIFFER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig

    from .core.config import ClusterConfig, Config

LOOPBACK = re.compile(r"localhost|localhost\.localdomain|127(\.\d+){1,3}|::1|ip6-localhost")

# As in "-c statement_timeout=5s" or "--statement-timeout=5000". https://www.postgresql.org/docs/current/config-setting.html
STATEMENT_TIMEOUT = re.compile(r"statement[_-]timeout\s*=\s*'?(\d+(?:\.\d+)?)(?:\\?\s)*(us|ms|s|min|h|d)?\b", re.IGNORECASE)
SECONDS_OF_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
# The rest is about eviction.
IDS_OF_ADVICE = {DIFFER: CheckId.SECRETS_DIFFER, LOCAL: CheckId.STORE_IS_LOCAL}

# `manage.py check --tag django_pglb` runs these alone.
TAG = "django_pglb"

OUR_MIDDLEWARE = "django_pglb.middleware.LoadBalancingMiddleware"
OUR_ROUTER = "django_pglb.routers.ReplicaRouter"
SESSION_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
CACHE_MIDDLEWARE = "django.middleware.cache.FetchFromCacheMiddleware"
OUR_CACHE_MIDDLEWARE = "django_pglb.page_cache.FetchFromCacheMiddleware"
OUR_UPDATE_MIDDLEWARE = "django_pglb.page_cache.UpdateCacheMiddleware"


def check(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong, as Django's `check` prints it."""
    return [*map(_message, find_problems())]


def find_problems() -> Iterator[Problem]:
    """Find all that is wrong; nothing about the rest of the project while there is no cluster.

    What is switched off is looked at all the same: it will be switched on when nothing is wrong any more.
    """
    config, problems = conf.read()
    if config.switched_off:
        message = "PGLB_ENABLED is False: all is off, and every read goes to the primary. What else is wrong is said all the same."
        yield Problem(CheckId.SWITCHED_OFF, message)
    yield from problems
    if config.enabled and not conf.is_set():
        hint = (
            'Name the primary and its replicas: PGLB = {"default": {"REPLICAS": ["replica1"]}}. Or take django_pglb out of INSTALLED_APPS.'
        )
        yield Problem(CheckId.NOT_CONFIGURED, "PGLB: not set, so all reads go to the primary.", hint)
    config = config.as_if_on()
    for cluster in config.clusters.values():
        yield from broken_references(cluster)
        yield from _replica_problems(cluster)
        yield from _address_problems(cluster)
    if config.clusters:
        yield from find_door_problems(config)
        yield from ignored_writes.find_problems(list(settings.MIDDLEWARE or ()))
        yield from _page_cache_problems()
        installed = [app.name for app in apps.get_app_configs()]
        yield from neighbours.find_problems(config, installed, list(settings.MIDDLEWARE or ()))


def find_door_problems(config: Config) -> Iterator[Problem]:
    """Find what keeps requests and queries away from replicas."""
    yield from _middleware_problems()
    yield from _router_problems(config)


def check_stores(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with the running stores. Only for `check --deploy`, since it asks them; who does not answer is not judged."""
    return [_message(problem) for problem in find_store_problems()]


def find_store_problems() -> Iterator[Problem]:
    """Ask each cluster's store how it is set up."""
    config, _ = conf.read()
    for cluster in config.named_clusters.values():
        report = look_at_store(cluster) if cluster.replicas else None
        if report is not None:
            path = setting_path("PGLB", cluster.primary, "STORE")
            if report.state == STORE_REFUSING:
                yield Problem(CheckId.STORE_REFUSES, f"{path}: {report.name} {report.why}.")
            yield from (
                Problem(IDS_OF_ADVICE.get(sentence, CheckId.STORE_EVICTS), f"{path}: {report.name}: {sentence}")
                for sentence in report.advice
            )


def _message(problem: Problem) -> checks.CheckMessage:
    # While all is off nothing is used that could be wrong, and nothing must stop the site.
    level = checks.ERROR if problem.is_error and conf.is_enabled() else checks.WARNING
    if problem.id is CheckId.SWITCHED_OFF:
        level = checks.INFO
    return checks.CheckMessage(level, problem.message, hint=problem.hint or None, id=f"django_pglb.{problem.id}")


# --- DATABASES ---


def _replica_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    primary = settings.DATABASES[cluster.primary]
    for replica in cluster.replicas:
        alias, options = replica.alias, settings.DATABASES[replica.alias]
        yield from _mirror_problems(alias, options, cluster.primary)
        if options.get("ATOMIC_REQUESTS") and not primary.get("ATOMIC_REQUESTS"):
            path = setting_path("DATABASES", alias, "ATOMIC_REQUESTS")
            message = f"{path}: makes each view a transaction on {shown(cluster.primary)}, since a transaction is the primary's."
            yield Problem(CheckId.ATOMIC_REQUESTS_ON_REPLICA, message, "Set it on the primary, or nowhere.")
        yield from find_differences(alias, options, cluster.primary, primary, pooled=replica.pooled)
        yield from _read_timeout_problems(cluster, alias, options)
        # In front of a pooler both belong to the pooler, which has names of its own and is often reached without TLS on the same machine.
        if not replica.pooled:
            yield from _difference_problems(alias, options, cluster.primary, primary)


def _address_problems(cluster: ClusterConfig) -> Iterator[Problem]:
    """Two aliases of one server are one server that is counted twice, and a primary is no replica of itself."""
    aliases: dict[tuple[str, ...], str] = {}
    # While tests run, mirrors are the primary itself.
    for alias in [alias for alias in cluster.aliases if not _is_mirror(settings.DATABASES[alias])]:
        options = settings.DATABASES[alias]
        address = _address(options)
        other = aliases.setdefault(address, alias)
        if other != alias and address[0]:
            message = f"{setting_path('DATABASES', alias)}: has the HOST, PORT and NAME of {shown(other)}, so it is the same server."
            yield Problem(CheckId.SAME_SERVER, message, 'Give each replica its own address. Without replicas write "REPLICAS": [].')


def _address(options: dict[str, Any]) -> tuple[str, ...]:
    """Return what says which server it is: this machine has several names, and a port that is not said is PostgreSQL's."""
    host, port, name = (str(options.get(key) or "") for key in ("HOST", "PORT", "NAME"))
    host = host.lower().rstrip(".")
    return "localhost" if LOOPBACK.fullmatch(host) else host, port or "5432", name


def _is_mirror(options: dict[str, Any]) -> bool:
    return MIRROR_OF in (options.get("TEST") or {})


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


def _read_timeout_problems(cluster: ClusterConfig, alias: str, options: dict[str, Any]) -> Iterator[Problem]:
    """A server that ends slow statements itself does so for good: that is the user's own error, and no other host is asked."""
    limit = _statement_timeout(str((options.get("OPTIONS") or {}).get("options") or ""))
    if cluster.read_timeout is None or not limit or limit > cluster.read_timeout:
        return
    path = setting_path("DATABASES", alias, "OPTIONS", "options")
    message = f"{path}: with a statement_timeout of {limit:g} s no slow read lasts until READ_TIMEOUT ({cluster.read_timeout:g} s)."
    hint = "Such a read is an error and is not answered by another host. Make READ_TIMEOUT the shorter one, or take one of them away."
    yield Problem(CheckId.READ_TIMEOUT_NEVER_ENDS, message, hint)


def _statement_timeout(startup_options: str) -> float | None:
    """Return the seconds of `statement_timeout` in libpq's `options`; the last one counts, as for the server."""
    found = STATEMENT_TIMEOUT.findall(startup_options)
    return float(found[-1][0]) * SECONDS_OF_UNIT[found[-1][1].lower() or "ms"] if found else None


def _sslmode(options: dict[str, Any]) -> str | None:
    """Return the mode of a TCP connection; None where there is none, or a service file says."""
    connect = options.get("OPTIONS") or {}
    host = str(options.get("HOST") or "/")
    # Unix sockets, by path or in the abstract namespace.
    if host.startswith(("/", "@")) or "service" in connect:
        return None
    # libpq's own default.
    return str(connect.get("sslmode", "prefer"))


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


def _page_cache_problems() -> Iterator[Problem]:
    paths = list(settings.MIDDLEWARE or ())
    ours = _first_index(paths, OUR_MIDDLEWARE, LoadBalancingMiddleware)
    updating = _first_index(paths, OUR_UPDATE_MIDDLEWARE, page_cache.UpdateCacheMiddleware)
    fetching = _first_index(paths, CACHE_MIDDLEWARE, FetchFromCacheMiddleware)
    if ours is not None and updating is not None and updating < ours and updating != fetching:
        message = f"MIDDLEWARE: {shown(paths[updating])} is above {shown(paths[ours])}, so it cannot tell what pages show, and stores none."
        yield Problem(CheckId.PAGE_CACHE_ABOVE_MIDDLEWARE, message, "Put UpdateCacheMiddleware right below LoadBalancingMiddleware.")
    if fetching is None:
        return
    if not is_or_extends(paths[fetching], OUR_CACHE_MIDDLEWARE, page_cache.FetchFromCacheMiddleware):
        message = f"MIDDLEWARE: {shown(paths[fetching])} serves pages that may be older than what their reader has written."
        hint = "Use UpdateCacheMiddleware and FetchFromCacheMiddleware of django_pglb.page_cache, in the same places."
        yield Problem(CheckId.PAGE_CACHE_NOT_OURS, message, hint)
    elif ours is not None and fetching < ours:
        message = f"MIDDLEWARE: {shown(paths[fetching])} is above {shown(paths[ours])}, so it knows nothing of who reads its pages."
        yield Problem(CheckId.PAGE_CACHE_ABOVE_MIDDLEWARE, message, "Put FetchFromCacheMiddleware last, as Django says.")


def _router_problems(config: Config) -> Iterator[Problem]:
    routers = list(settings.DATABASE_ROUTERS)
    index = _first_index(routers, OUR_ROUTER, ReplicaRouter)
    if index is None:
        message = "DATABASE_ROUTERS: ReplicaRouter is missing, so no query of the ORM goes to a replica."
        yield Problem(CheckId.ROUTER_MISSING, message, f'Put "{OUR_ROUTER}" first.')
    elif index > 0 and not neighbours.send_some_reads_to_primaries(router.routers[:index], config):
        above = routers[0] if isinstance(routers[0], str) else type(routers[0]).__qualname__
        message = f"DATABASE_ROUTERS: ReplicaRouter is below {shown(above)}, whose answers it never sees and which may send reads past it."
        yield Problem(CheckId.ROUTER_NOT_FIRST, message, "Put it first. It asks the others which database owns a model.")


def _first_index(entries: Sequence[object], path: str, wanted: type) -> int | None:
    return next((index for index, entry in enumerate(entries) if is_or_extends(entry, path, wanted)), None)
