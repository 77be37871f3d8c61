"""System checks: each way to get the settings wrong has words of its own, and finding it needs no server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, registry, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db.backends.signals import connection_created
from django.test import override_settings
from django_redis.cache import RedisCache

from django_pglb import conf, runtime
from django_pglb.middleware import LoadBalancingMiddleware
from django_pglb.routers import ReplicaRouter
from django_pglb.stores import CacheStore

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")

OURS = "django_pglb.middleware.LoadBalancingMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
ROUTER = "django_pglb.routers.ReplicaRouter"

not_callable = "text"


class OurMiddleware(LoadBalancingMiddleware):
    pass


class OurSessions(SessionMiddleware):
    pass


class OurRouter(ReplicaRouter):
    pass


class OtherRouter:
    pass


class OurCache(RedisCache):
    pass


class OurStore(CacheStore):
    pass


class StoreWithOption(CacheStore):
    def __init__(self, *, pointer_seconds: float, cache: str = "default", shard: str) -> None:
        super().__init__(pointer_seconds=pointer_seconds, cache=cache)
        self.shard = shard


def messages(**changes: Any) -> list[CheckMessage]:
    """Our messages with some settings changed."""
    with override_settings(**changes):
        return [message for message in run_checks() if str(message.id).startswith("django_pglb.")]


def ids(**changes: Any) -> list[str]:
    return [str(message.id).removeprefix("django_pglb.") for message in messages(**changes)]


def cluster(**options: Any) -> dict[str, Any]:
    return {"PGLB": {"default": {"REPLICAS": ["replica1", "replica2"], **options}}}


def databases(alias: str, /, **changes: Any) -> dict[str, Any]:
    """The test databases with some settings of one alias changed; None takes one away."""
    changed = {name: value for name, value in {**settings.DATABASES[alias], **changes}.items() if value is not None}
    return {"DATABASES": {**settings.DATABASES, alias: changed}}


def same_address(*aliases: str, PORT: object = 7, **hosts: str) -> dict[str, Any]:  # noqa: N803 - as the setting is called
    """Have these aliases at one address, some by another name of its host."""
    at = {**dict.fromkeys(aliases, "127.0.0.1"), **hosts}
    changed = {alias: {**settings.DATABASES[alias], "HOST": host, "PORT": PORT} for alias, host in at.items()}
    return {"DATABASES": {**settings.DATABASES, **changed}}


def middleware(*paths: str) -> dict[str, Any]:
    rest = [path for path in settings.MIDDLEWARE if path not in {OURS, SESSIONS}]
    return {"MIDDLEWARE": [*paths, *rest]}


def caches(backend: str) -> dict[str, Any]:
    return {"CACHES": {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}}}


def test_the_test_site_has_no_problem() -> None:
    """Acceptable settings print nothing."""
    assert ids() == []


# Settings, the id, and words that the message must have.
WRONG: dict[str, tuple[dict[str, Any], str, Iterable[str]]] = {
    "not a dict": ({"PGLB": ["replica1"]}, "E001", ["PGLB", "a list"]),
    "unknown primary": ({"PGLB": {"defualt": {"REPLICAS": []}}}, "E002", ['PGLB["defualt"]', 'did you mean "default"?']),
    "cluster not a dict": ({"PGLB": {"default": ["replica1"]}}, "E003", ['PGLB["default"]', "a list"]),
    "unknown key": (cluster(MAX_LAG_SECNDS=5), "E004", ['PGLB["default"]["MAX_LAG_SECNDS"]', 'did you mean "MAX_LAG_SECONDS"?']),
    "wrong type": (cluster(CHECK_TIMEOUT="1"), "E005", ['PGLB["default"]["CHECK_TIMEOUT"]', 'not "1"']),
    "out of range": (cluster(POINTER_SECONDS=-1), "E006", ["more than 0", "not -1"]),
    "not a choice": (cluster(ON_STORE_ERROR="prmary"), "E007", ['did you mean "primary"?']),
    "no task level": ({"PGLB_TASK_CONSISTENCY": "stiky"}, "E007", ["PGLB_TASK_CONSISTENCY", 'did you mean "sticky"?']),
    "enabled not a bool": ({"PGLB_ENABLED": "0"}, "E009", ["PGLB_ENABLED", 'not "0"']),
    "replicas missing": ({"PGLB": {"default": {}}}, "E010", ["REPLICAS is missing"]),
    "replicas a string": (cluster(REPLICAS="replica1"), "E011", ["one string"]),
    "unknown replica": (cluster(REPLICAS=["replca1"]), "E012", ['did you mean "replica1"?']),
    "replica twice": (cluster(REPLICAS=["replica1", "replica1"]), "E013", ["listed twice"]),
    "replica in two clusters": (
        {"PGLB": {"default": {"REPLICAS": ["replica2"]}, "replica1": {"REPLICAS": ["replica2"]}}},
        "E014",
        ['PGLB["replica1"]["REPLICAS"]', 'also listed in PGLB["default"]["REPLICAS"]'],
    ),
    "replica a primary": (
        {"PGLB": {"default": {"REPLICAS": ["replica1"]}, "replica1": {"REPLICAS": []}}},
        "E015",
        ["is a primary as well"],
    ),
    "primary its own replica": (cluster(REPLICAS=["default"]), "E016", ["the primary itself"]),
    "unknown replica option": (cluster(REPLICAS={"replica1": {"WIEGHT": 1}}), "E017", ['did you mean "WEIGHT"?']),
    "methods a string": (cluster(REPLICA_METHODS="GET"), "E018", ["REPLICA_METHODS", "one string"]),
    "method in lower case": (cluster(REPLICA_METHODS=["get"]), "E019", ['"get"', "upper-case"]),
    "not a method": (cluster(REPLICA_METHODS=["GET HEAD"]), "E020", ['"GET HEAD"']),
    "not a dotted path": (cluster(IDENTITY="from_request"), "E021", ["IDENTITY", "dotted path"]),
    "unknown store option": (cluster(STORE={"CAHCE": "default"}), "E022", ['did you mean "CACHE"?']),
    "store lacks an option": (
        cluster(STORE={"BACKEND": f"{__name__}.StoreWithOption"}),
        "E022",
        ['PGLB["default"]["STORE"]', "missing a required argument: 'shard'"],
    ),
    "identity not there": (cluster(IDENTITY="shop.identity.who"), "E023", ['PGLB["default"]["IDENTITY"]', "No module named 'shop'"]),
    "identity not callable": (cluster(IDENTITY=f"{__name__}.not_callable"), "E024", ["IDENTITY", "cannot be called"]),
    "store not there": (cluster(STORE={"BACKEND": "shop.Store"}), "E025", ['["STORE"]["BACKEND"]', "No module named 'shop'"]),
    "monotonic in a cookie": (
        cluster(CONSISTENCY="monotonic", STORE={"BACKEND": "django_pglb.stores.CookieStore"}),
        "E034",
        ['PGLB["default"]["CONSISTENCY"]', "overwrite each other"],
    ),
    "pointer header not a name": ({"PGLB_POINTER_HEADER": "X_Pointer"}, "E008", ["PGLB_POINTER_HEADER", 'not "X_Pointer"']),
    "pointer header not text": ({"PGLB_POINTER_HEADER": True}, "E008", ["PGLB_POINTER_HEADER", "not True"]),
    "pointer header taken": ({"PGLB_POINTER_HEADER": "authorization"}, "E036", ["PGLB_POINTER_HEADER", "means something else"]),
    "pointer header of a taken kind": ({"PGLB_POINTER_HEADER": "Sec-Pointer"}, "E036", ["PGLB_POINTER_HEADER", '"Sec-Pointer"']),
    "page cache not ours": (
        middleware(OURS, SESSIONS, "django.middleware.cache.CacheMiddleware"),
        "W014",
        ["django.middleware.cache.CacheMiddleware", "older than what their reader has written"],
    ),
    "page cache above the middleware": (
        middleware("django_pglb.page_cache.FetchFromCacheMiddleware", OURS, SESSIONS),
        "E037",
        ["FetchFromCacheMiddleware", "knows nothing of who reads"],
    ),
    "page cache stores above the middleware": (
        middleware("django_pglb.page_cache.UpdateCacheMiddleware", OURS, SESSIONS, "django_pglb.page_cache.FetchFromCacheMiddleware"),
        "E037",
        ["UpdateCacheMiddleware", "cannot tell what pages show"],
    ),
    "ignored writes without a beginning": (
        middleware(OURS, "django_pglb.ignored_writes.End", SESSIONS),
        "E043",
        ['"django_pglb.ignored_writes.End" without "django_pglb.ignored_writes.Begin" above it'],
    ),
    "not a store": (cluster(STORE={"BACKEND": f"{__name__}.OtherRouter"}), "E026", ["is not a store"]),
    "unknown cache": (cluster(STORE={"CACHE": "defualt"}), "E027", ['["STORE"]["CACHE"]', 'did you mean "default"?']),
    "cache not atomic": (caches("django.core.cache.backends.redis.RedisCache"), "E028", ["django.core.cache.backends.redis.RedisCache"]),
    "engine of the primary": (databases("default", ENGINE="django.db.backends.postgresql"), "E029", ['DATABASES["default"]["ENGINE"]']),
    "engine of a replica": (databases("replica2", ENGINE="django.db.backends.sqlite3"), "E029", ['DATABASES["replica2"]["ENGINE"]']),
    "engine not there": (databases("replica1", ENGINE="shop.engine"), "E029", ["cannot be loaded"]),
    "no engine": (databases("replica1", ENGINE=None), "E029", ['DATABASES["replica1"]["ENGINE"]: not set']),
    "no middleware": (middleware(SESSIONS), "E030", ["MIDDLEWARE", "missing"]),
    "middleware below sessions": (middleware(SESSIONS, OURS), "E031", ["MIDDLEWARE", "below"]),
    "middleware below other sessions": (middleware(f"{__name__}.OurSessions", OURS), "E031", ["OurSessions"]),
    "no router": ({"DATABASE_ROUTERS": [f"{__name__}.OtherRouter"]}, "E032", ["DATABASE_ROUTERS", "missing"]),
    "identities differ": (
        {"PGLB": {"default": {"REPLICAS": []}, "replica1": {"REPLICAS": [], "IDENTITY": f"{__name__}.cluster"}}},
        "E033",
        ['PGLB["replica1"]["IDENTITY"]', "differs"],
    ),
    "pointer too short": (cluster(POINTER_SECONDS=30), "W002", ["POINTER_SECONDS", "MAX_LAG_SECONDS = 20"]),
    "pin too short": (cluster(STICKY_SECONDS=10), "W010", ["STICKY_SECONDS", "MAX_LAG_SECONDS = 20"]),
    "lag unlimited": (cluster(MAX_LAG_SECONDS=None), "W003", ["MAX_LAG_SECONDS", "None"]),
    "cache not atomic in debug": ({"DEBUG": True, **caches("django.core.cache.backends.locmem.LocMemCache")}, "W004", ["LocMemCache"]),
    "router not first": ({"DATABASE_ROUTERS": [f"{__name__}.OtherRouter", ROUTER]}, "W005", ["DATABASE_ROUTERS", "OtherRouter"]),
    "router below an instance": ({"DATABASE_ROUTERS": [OtherRouter(), ROUTER]}, "W005", ["OtherRouter"]),
    "no mirror": (databases("replica1", TEST=None), "W006", ['DATABASES["replica1"]["TEST"]["MIRROR"]', "not set"]),
    "other mirror": (databases("replica1", TEST={"MIRROR": "replica2"}), "W006", ['is "replica2"']),
    "other name": (databases("replica1", NAME="shop"), "W007", ['DATABASES["replica1"]["NAME"]', '"shop"']),
    "other sslmode": (databases("replica1", OPTIONS={"sslmode": "require"}), "W008", ["sslmode", '"require"', '"prefer"']),
    "statement timeout": (
        {**cluster(READ_TIMEOUT=5), **databases("replica1", OPTIONS={"options": "-c statement_timeout=3s"})},
        "W017",
        ['DATABASES["replica1"]["OPTIONS"]["options"]', "3 s", "5 s"],
    ),
    "replica at the primary's address": (same_address("default", "replica1"), "W011", ['DATABASES["replica1"]', '"default"']),
    "other time zone": (databases("replica1", TIME_ZONE="Asia/Tokyo"), "W025", ['["replica1"]["TIME_ZONE"]', '"Asia/Tokyo"', "not set"]),
    "other user": (databases("replica1", USER="reader"), "W026", ['["replica1"]["USER"]', '"reader"', '"postgres"']),
    "other search_path": (
        databases("replica1", OPTIONS={"options": "-c search_path=shop,public -c statement_timeout=5s"}),
        "W027",
        ['["OPTIONS"]["options"]', 'search_path is "shop,public"', "not set"],
    ),
    "other option": (databases("replica2", OPTIONS={"client_encoding": "LATIN1"}), "W027", ['["replica2"]["OPTIONS"]["client_encoding"]']),
    "two replicas at one address": (same_address("replica1", "replica2"), "W011", ['DATABASES["replica2"]', '"replica1"']),
    "unknown setting": ({"PGLB_ENABLE": False}, "W012", ['did you mean "PGLB_ENABLED"?']),
    "atomic requests on a replica": (databases("replica1", ATOMIC_REQUESTS=True), "W009", ['DATABASES["replica1"]["ATOMIC_REQUESTS"]']),
}


@pytest.mark.parametrize(
    ("text", "is_pointless"),
    [
        ("-c statement_timeout=5000", True),
        ("--statement-timeout=5000", True),
        ("-c work_mem=1MB -c statement_timeout=0.05min", True),
        ("-c statement_timeout=3000ms", True),
        ("-c statement_timeout=3\\ s", True),
        ("-c statement_timeout=1ms -c statement_timeout=10s", False),
        ("-c statement_timeout=5001", False),
        ("-c statement_timeout=1min", False),
        ("-c statement_timeout=0", False),
        ("-c lock_timeout=1", False),
    ],
)
def test_statement_timeout_is_read_as_the_server_reads_it(text: str, is_pointless: bool) -> None:
    """0 is none, the last one counts, and a number without a unit is of milliseconds."""
    found = messages(**cluster(READ_TIMEOUT=5), **databases("replica1", OPTIONS={"options": text}))
    assert any(message.id == "django_pglb.W017" for message in found) == is_pointless
    assert not [message for message in messages(**databases("replica1", OPTIONS={"options": text})) if message.id == "django_pglb.W017"]


def test_atomic_requests_may_be_shared() -> None:
    """On all aliases of a cluster it means what it means on the primary."""
    shared = {alias: {**settings.DATABASES[alias], "ATOMIC_REQUESTS": True} for alias in settings.DATABASES}
    assert not [message for message in messages(DATABASES=shared) if message.id == "django_pglb.W009"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named(name: str) -> None:
    """The one message of our checks has the id, the level, the setting and the words."""
    changes, check, words = WRONG[name]
    found = [message for message in messages(**changes) if message.id == f"django_pglb.{check}"]
    assert len(found) == 1, messages(**changes)
    (message,) = found
    assert message.is_serious() == check.startswith("E")
    assert [word for word in words if word not in message.msg] == []


def test_wrong_settings_have_words_of_their_own() -> None:
    """No two ways to be wrong get the same message, and each message comes with a hint or says it all itself."""
    texts = [
        {message.msg for message in messages(**changes) if message.id == f"django_pglb.{check}"} for changes, check, _ in WRONG.values()
    ]
    assert len(set.union(*texts)) == sum(len(text) for text in texts) == len(WRONG)


@pytest.mark.parametrize(
    "changes",
    [
        same_address("default", replica1="LocalHost."),
        same_address("replica1", replica2="::1"),
        same_address(PORT="", replica1="127.0.0.1", replica2="localhost"),
    ],
)
def test_the_same_server_is_recognised_by_its_other_names(changes: dict[str, Any]) -> None:
    """This machine has several, and a port that is not said is PostgreSQL's."""
    assert ids(**changes) == ["W011"]


def test_startup_options_are_read_as_postgresql_reads_them() -> None:
    """In either form of writing them."""
    written = ["-c search_path=shop", "-csearch_path=shop", "--search-path=shop -c jit=off"]
    assert [ids(**databases("replica1", OPTIONS={"options": options})) for options in written] == [["W027"]] * 3
    both = {alias: databases(alias, OPTIONS={"options": "-c search_path=a"})["DATABASES"][alias] for alias in settings.DATABASES}
    assert ids(DATABASES=both) == []


@pytest.mark.parametrize("changes", [{"TIME_ZONE": "UTC"}, {"OPTIONS": {"fallback_application_name": "reader"}}])
def test_what_decides_nothing_may_differ(changes: dict[str, Any]) -> None:
    """Django takes UTC where no zone is set, and a name of the connection is in no answer."""
    assert ids(**databases("replica1", **changes)) == []


def test_the_command_prints_what_is_wrong() -> None:
    """`manage.py check` fails and shows id, setting, guess and hint."""
    with override_settings(**cluster(MAX_LAG_SECNDS=5)), pytest.raises(SystemCheckError) as failure:
        call_command("check", stdout=StringIO(), stderr=StringIO())
    printed = str(failure.value)
    assert '(django_pglb.E004) PGLB["default"]["MAX_LAG_SECNDS"]: unknown key; did you mean "MAX_LAG_SECONDS"?' in printed
    assert "HINT: Known are" in printed


def test_every_mistake_is_shown_at_once() -> None:
    """A broken key hides neither the other keys' problems nor those around the package."""
    changes = {**cluster(CHEK=1, CHECK_TIMEOUT="1"), **middleware(SESSIONS), **databases("replica1", TEST=None), "DATABASE_ROUTERS": []}
    assert ids(**changes) == ["E004", "E005", "W006", "E030", "E032"]


@pytest.mark.parametrize(
    "name",
    ["identity not there", "identity not callable", "store not there", "not a store", "unknown cache", "engine of a replica", "no engine"],
)
def test_what_cannot_work_stops_the_first_query(name: str) -> None:
    """Servers run no checks, and a replica on Django's own engine would serve old pages without a word."""
    changes, _, words = WRONG[name]
    try:
        with override_settings(**changes), pytest.raises(ImproperlyConfigured) as failure:
            runtime.get_runtime()
    finally:
        runtime.reset()
    assert [word for word in words if word not in str(failure.value)] == []


LOCMEM, DUMMY = "django.core.cache.backends.locmem.LocMemCache", "django.core.cache.backends.dummy.DummyCache"


class OurLocalCache(LocMemCache):
    """A cache of a project's own that each process has for itself."""


@pytest.fixture
def fresh_runtime() -> Iterator[None]:
    runtime.reset()
    yield
    runtime.reset()


@pytest.mark.usefixtures("fresh_runtime")
@pytest.mark.parametrize("backend", [LOCMEM, DUMMY, f"{__name__}.OurLocalCache"])
def test_cache_that_processes_do_not_share_stops_the_first_query(backend: str) -> None:
    """Other processes would miss what this one's users wrote, without a word: servers run no checks."""
    with override_settings(**caches(backend)), pytest.raises(ImproperlyConfigured) as failure:
        runtime.get_runtime()
    assert f'PGLB["default"]["STORE"]["CACHE"]: "default" is "{backend}", which other processes cannot read' in str(failure.value)


@pytest.mark.usefixtures("fresh_runtime")
@pytest.mark.parametrize(
    "changes",
    [
        {"DEBUG": True},
        cluster(REPLICAS=[]),
        cluster(CONSISTENCY="eventual"),
        cluster(STORE={"BACKEND": "django_pglb.stores.CookieStore"}),
        {"PGLB_ENABLED": False},
    ],
    ids=str,
)
def test_cache_that_processes_do_not_share_does_where_no_other_needs_it(changes: dict[str, Any]) -> None:
    """On a developer's machine, and where nothing is to be remembered."""
    with override_settings(**{**caches(LOCMEM), **changes}):
        assert runtime.get_runtime()


@pytest.mark.usefixtures("fresh_runtime")
def test_cache_of_each_process_does_for_tests_whose_replicas_will_be_mirrors() -> None:
    """Django makes the test databases first, and the mirrors then."""
    with override_settings(**caches(LOCMEM)):
        with runtime.making_test_databases():
            assert runtime.get_runtime()
        runtime.reset()
        with pytest.raises(ImproperlyConfigured):
            runtime.get_runtime()


@pytest.mark.usefixtures("fresh_runtime")
@pytest.mark.parametrize(
    "backend",
    [
        "django.core.cache.backends.redis.RedisCache",
        "django.core.cache.backends.filebased.FileBasedCache",
        "django.core.cache.backends.db.DatabaseCache",
    ],
)
def test_shared_cache_that_is_not_atomic_is_logged_once(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """It serves, if not well, and servers run no checks."""
    with override_settings(**caches(backend)):
        for _ in range(3):
            runtime.get_runtime()
    (record,) = [record for record in caplog.records if record.name == "django_pglb.store"]
    assert record.levelname == "ERROR"
    assert f'"default" is "{backend}", where concurrent requests' in record.message


def test_middleware_without_the_app_is_refused() -> None:
    """Nobody would listen to logins, and no check would say so."""
    without = [app for app in settings.INSTALLED_APPS if app != "django_pglb"]
    with override_settings(INSTALLED_APPS=without), pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        LoadBalancingMiddleware(lambda request: None)


@pytest.mark.parametrize(
    "changes",
    [
        middleware(f"{__name__}.OurMiddleware", SESSIONS),
        middleware("django.middleware.security.SecurityMiddleware", OURS, SESSIONS),
        middleware("nowhere.Middleware", OURS),
        {"DATABASE_ROUTERS": [f"{__name__}.OurRouter"]},
        {"DATABASE_ROUTERS": [ReplicaRouter(), OtherRouter()]},
        caches(f"{__name__}.OurCache"),
        {**cluster(STORE={"BACKEND": "django_pglb.stores.CookieStore"}), **caches("django.core.cache.backends.locmem.LocMemCache")},
        cluster(STORE={"BACKEND": f"{__name__}.OurStore"}),
        cluster(STORE={"BACKEND": f"{__name__}.StoreWithOption", "SHARD": "a"}),
        cluster(IDENTITY=f"{__name__}.cluster"),
        cluster(REPLICAS=[]),
        {"PGLB": {}},
        {**databases("replica1", OPTIONS={"sslmode": "require"}, HOST="/run/postgresql")},
        {**databases("replica1", OPTIONS={"sslmode": "prefer"})},
        databases("replica1", OPTIONS={"connect_timeout": 1, "pool": True, "options": "-c statement_timeout=5s -c work_mem=64MB"}),
        {
            **databases("replica1", USER="pooled", OPTIONS={"options": "-c search_path=shop"}),
            **cluster(REPLICAS={"replica1": {"POOLED": True}, "replica2": {}}),
        },
        {**databases("replica1", NAME="pool", OPTIONS={"sslmode": "disable"}), **cluster(REPLICAS={"replica1": {"POOLED": True}})},
        databases("default", ATOMIC_REQUESTS=True),
    ],
    ids=str,
)
def test_acceptable_variations_are_silent(changes: dict[str, Any]) -> None:
    """Subclasses, instances, stores without a cache, sockets and poolers are no reason to complain."""
    assert ids(**changes) == []


def test_a_store_that_extends_ours_needs_an_atomic_cache_too() -> None:
    """What a custom store inherits from the cache store, it inherits with its needs."""
    assert ids(**cluster(STORE={"BACKEND": f"{__name__}.OurStore"}), **caches("django.core.cache.backends.dummy.DummyCache")) == ["E028"]


@pytest.fixture
def without_pglb(settings: Any) -> Any:
    """The project's settings, without PGLB."""
    del settings.PGLB
    conf.reset()
    return settings


def test_an_installed_but_unconfigured_package_is_told_how_to_start(without_pglb: Any) -> None:
    """Without PGLB there is one warning, with an example; nothing else of the project is looked at."""
    (message,) = messages(MIDDLEWARE=[], DATABASE_ROUTERS=[])
    assert message.id == "django_pglb.W001"
    assert "PGLB = {" in str(message.hint)


def test_nobody_who_switched_off_is_told_how_to_start(without_pglb: Any) -> None:
    """Without PGLB, but switched off, there is nothing to say."""
    assert ids(PGLB_ENABLED=False) == []


OFF = "W024"


def test_what_is_switched_off_is_checked_all_the_same() -> None:
    """People switch off first, and on when nothing is wrong any more."""
    assert ids(PGLB_ENABLED=False) == [OFF]
    wrong = {"MIDDLEWARE": [], **cluster(REPLICAS=["replica1", "replicat2"], CHECK_TIMEOUT="1"), **same_address("default", "replica1")}
    assert ids(PGLB_ENABLED=False, **wrong) == [OFF, *ids(**wrong)]


def test_the_switch_works_on_a_broken_project() -> None:
    """That is what it is for: what is wrong is said, and stops nothing."""
    wrong = {"PGLB_TASK_CONSISTENCY": "alway", **cluster(REPLICAS=["nobody"], STORE={"BACKEND": "no.where"})}
    with override_settings(**wrong), pytest.raises(SystemCheckError):
        call_command("check", stdout=StringIO(), stderr=StringIO())
    with override_settings(PGLB_ENABLED=False, **wrong):
        out, err = StringIO(), StringIO()
        call_command("check", stdout=out, stderr=err)
        assert "django_pglb.E012" in err.getvalue()
        assert conf.get_config().clusters == {}
        assert runtime.get_runtime().config.enabled is False
    with override_settings(PGLB_ENABLED=False, PGLB="rubbish"):
        assert ids() == ["E001"]
        assert conf.get_config().home_of == {}


def test_off_alone_fails_no_check() -> None:
    """It is meant, also where warnings are failures."""
    with override_settings(PGLB_ENABLED=False):
        err = StringIO()
        call_command("check", tags=["django_pglb"], fail_level="WARNING", stdout=StringIO(), stderr=err)
    assert "PGLB_ENABLED is False: all is off" in err.getvalue()


def test_checks_open_no_connection() -> None:
    """Nothing is connected to while all checks of the project run, database checks apart."""
    opened: list[object] = []

    def note(connection: object, **_: object) -> None:
        opened.append(connection)

    connection_created.connect(note)
    try:
        ids()
        ids(**databases("replica1", TEST=None))
    finally:
        connection_created.disconnect(note)
    assert opened == []


def test_checks_run_with_every_check_command() -> None:
    """They carry our tag and not `database`, which a plain `check` leaves out."""
    assert registry.registry.tag_exists("django_pglb")
    assert [message.id for message in _tagged("django_pglb")] == ["django_pglb.E030"]
    assert _tagged("database") == []


def _tagged(tag: str) -> list[CheckMessage]:
    with override_settings(**middleware(SESSIONS)):
        return run_checks(tags=[tag])


# --- conf ---


def test_settings_are_read_once() -> None:
    """The same object comes back until something changes."""
    assert conf.get_config() is conf.get_config()


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"PGLB": {}}, lambda config: config.clusters == {}),
        ({"PGLB_ENABLED": False}, lambda config: not config.enabled and config.clusters == {}),
        ({"DEBUG": True}, lambda config: config.clusters["default"].debug_header),
    ],
)
def test_a_changed_setting_is_read_again(changes: dict[str, Any], check: Any) -> None:
    """An override counts at once, and its end too."""
    with override_settings(**cluster()):
        before = conf.get_config()
        assert not check(before)
        with override_settings(**changes):
            assert check(conf.get_config())
        assert conf.get_config() == before


def test_changed_databases_are_read_again() -> None:
    """An alias that went away makes the setting that names it wrong."""
    assert "replica1" in conf.get_config().primary_of
    without = {alias: options for alias, options in settings.DATABASES.items() if alias != "replica1"}
    with override_settings(DATABASES=without), pytest.raises(ImproperlyConfigured, match="replica1"):
        conf.get_config()


def test_nothing_runs_on_a_misread_setting() -> None:
    """All errors are named in what is raised, every time, and warnings are not."""
    changes = cluster(MAX_LAG_SECNDS=5, CHECK_TIMEOUT="1", POINTER_SECONDS=25)
    with override_settings(**changes):
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured) as raised:
                conf.get_config()
            first, second = str(raised.value).splitlines()
            assert first.startswith('PGLB["default"]["MAX_LAG_SECNDS"]: unknown key; did you mean "MAX_LAG_SECONDS"?')
            assert second.startswith('PGLB["default"]["CHECK_TIMEOUT"]: must be a number of seconds')


def test_what_is_usable_of_misread_settings_is_told_without_raising() -> None:
    """Django asks routers while it runs the checks: an exception there would hide what they say."""
    with override_settings(**cluster(REPLICAS=["replica1", "nowhere"])):
        assert conf.get_usable_config().primary_of == {"default": "default", "replica1": "default"}
    assert conf.get_usable_config() == conf.get_config()


def test_a_warning_stops_nothing() -> None:
    """What is only unwise runs."""
    with override_settings(**cluster(POINTER_SECONDS=25)):
        assert conf.get_config().clusters["default"].pointer_seconds == 25
