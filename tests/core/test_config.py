"""From the PGLB setting to a Config, and what is wrong on the way."""

from __future__ import annotations

import math
import re
from collections import UserDict
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_pglb.core.config import ClusterConfig, Config, ReplicaConfig, StoreConfig
from django_pglb.core.config_keys import KEY_NAMES, KEYS, REPLICA_KEYS
from django_pglb.core.config_parser import parse, parse_enabled
from django_pglb.core.problem import CheckId, Problem, did_you_mean, shown

ALIASES = ("default", "replica1", "replica2", "analytics")


def parsed(raw: object, *, enabled: bool = True, debug: bool = False) -> tuple[Config, tuple[Problem, ...]]:
    return parse(raw, enabled=enabled, debug=debug, database_aliases=ALIASES)


def cluster(**options: object) -> ClusterConfig:
    """The one cluster of acceptable settings."""
    config, problems = parsed({"default": {"REPLICAS": ["replica1"], **options}})
    assert problems == ()
    return config.clusters["default"]


def only_problem(raw: object) -> Problem:
    _, problems = parsed(raw)
    assert len(problems) == 1, problems
    return problems[0]


def problem_of(**options: object) -> Problem:
    """The one problem of otherwise acceptable settings."""
    return only_problem({"default": {"REPLICAS": ["replica1"], **options}})


# --- What is acceptable ---


def test_the_smallest_settings_give_the_defaults() -> None:
    """REPLICAS alone is enough, and every other key has its default."""
    assert cluster() == ClusterConfig(primary="default", replicas=(ReplicaConfig(alias="replica1"),))


def test_no_cluster_is_acceptable() -> None:
    """An empty PGLB is a decision, not a mistake."""
    assert parsed({}) == (Config(), ())


def test_no_replica_is_acceptable() -> None:
    """A developer's machine has none: REPLICAS may be empty."""
    config, problems = parsed({"default": {"REPLICAS": []}})
    assert (config.clusters["default"].replicas, problems) == ((), ())


def test_replicas_may_carry_options() -> None:
    """The dict form sets weight and pooling, and an empty dict sets none."""
    config, problems = parsed({"default": {"REPLICAS": {"replica1": {"WEIGHT": 2.5, "POOLED": True}, "replica2": {}}}})
    assert problems == ()
    assert config.clusters["default"].replicas == (
        ReplicaConfig(alias="replica1", weight=2.5, pooled=True),
        ReplicaConfig(alias="replica2"),
    )


def test_several_clusters_know_their_aliases() -> None:
    """Every alias of two clusters leads to its own primary."""
    config, problems = parsed({"default": {"REPLICAS": ["replica1"]}, "analytics": {"REPLICAS": ["replica2"]}})
    assert problems == ()
    assert config.primary_of == {"default": "default", "replica1": "default", "analytics": "analytics", "replica2": "analytics"}


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("CONSISTENCY", "eventual", "consistency", "eventual"),
        ("POINTER_SECONDS", 7200, "pointer_seconds", 7200),
        ("STICKY_SECONDS", 40.5, "sticky_seconds", 40.5),
        ("MAX_LAG_SECONDS", 5, "max_lag_seconds", 5),
        ("CHECK_INTERVAL", 0.2, "check_interval", 0.2),
        ("CHECK_TIMEOUT", 2, "check_timeout", 2),
        ("WAIT_SECONDS", 0, "wait_seconds", 0),
        ("READ_TIMEOUT", 2.5, "read_timeout", 2.5),
        ("READ_TIMEOUT", None, "read_timeout", None),
        ("WAIT_SECONDS", 0.05, "wait_seconds", 0.05),
        ("REPLICA_METHODS", {"GET", "QUERY"}, "replica_methods", frozenset({"GET", "QUERY"})),
        ("REPLICA_METHODS", [], "replica_methods", frozenset()),
        ("STORE", {}, "store", StoreConfig()),
        ("STORE", {"CACHE": "pointers"}, "store", StoreConfig(options={"cache": "pointers"})),
        (
            "STORE",
            {"BACKEND": "django_pglb.stores.CookieStore"},
            "store",
            StoreConfig(backend="django_pglb.stores.CookieStore", options={}),
        ),
        ("STORE", {"BACKEND": "shop.Store", "HOST": 7}, "store", StoreConfig(backend="shop.Store", options={"host": 7})),
        ("COOKIE", False, "cookie", False),
        ("ON_STORE_ERROR", "replica", "on_store_error", "replica"),
        ("IDENTITY", "shop.identity.from_request", "identity", "shop.identity.from_request"),
        ("PRIMARY_ATTEMPTS", 1, "primary_attempts", 1),
        ("PRIMARY_FALLBACK_LIMIT", None, "primary_fallback_limit", None),
        ("PRIMARY_FALLBACK_LIMIT", 20, "primary_fallback_limit", 20),
        ("CONSISTENCY", "monotonic", "consistency", "monotonic"),
        ("PRIMARY_BACKOFF", 0, "primary_backoff", 0),
        ("GUARD_STALE_SAVES", "raise", "guard_stale_saves", "raise"),
        ("DEBUG_HEADER", True, "debug_header", True),
    ],
)
def test_a_key_fills_its_field(name: str, value: object, field: str, expected: object) -> None:
    """Each key's value arrives in its field, and nothing is complained about."""
    assert getattr(cluster(**{name: value}), field) == expected


@pytest.mark.parametrize("debug", [True, False])
def test_debug_header_follows_debug(debug: bool) -> None:
    """DEBUG decides where DEBUG_HEADER is not set, and only there."""
    config, _ = parsed({"default": {"REPLICAS": []}, "analytics": {"REPLICAS": [], "DEBUG_HEADER": not debug}}, debug=debug)
    assert [cluster.debug_header for cluster in config.clusters.values()] == [debug, not debug]


@pytest.mark.parametrize(("debug", "expected"), [(True, "warn"), (False, "off")])
def test_guard_of_stale_saves_follows_debug(debug: bool, expected: str) -> None:
    """DEBUG decides where GUARD_STALE_SAVES is not set, and only there, for each cluster."""
    config, _ = parsed({"default": {"REPLICAS": []}, "analytics": {"REPLICAS": [], "GUARD_STALE_SAVES": "raise"}}, debug=debug)
    assert [cluster.guard_stale_saves for cluster in config.clusters.values()] == [expected, "raise"]


def test_every_field_has_a_key() -> None:
    """The table and the dataclasses agree, so that no field is out of a user's reach."""
    assert {key.field for key in KEYS} == {field.name for field in fields(ClusterConfig)} - {"primary", "replicas"}
    assert {key.field for key in REPLICA_KEYS} == {field.name for field in fields(ReplicaConfig)} - {"alias"}


# --- The switch ---


@pytest.mark.parametrize("raw", [{"default": {"REPLICAS": ["replica1"]}}, "rubbish", None])
def test_switched_off_looks_at_nothing(raw: object) -> None:
    """PGLB_ENABLED = False works whatever state PGLB is in."""
    assert parsed(raw, enabled=False) == (Config(enabled=False, clusters={}), ())


@pytest.mark.parametrize("value", ["true", "0", "", 1, 0, None])
def test_the_switch_takes_booleans_only(value: object) -> None:
    """Anything but True and False is refused: the text "0" would have meant on."""
    enabled, (problem,) = parse_enabled(value)
    assert enabled
    assert problem.id is CheckId.ENABLED_NOT_A_BOOL
    assert shown(value) in problem.message


def test_a_switch_from_the_environment_is_told_how_to_convert() -> None:
    """The hint for text shows how to make a boolean of it; for a number there is nothing to say about the environment."""
    assert "os.environ" in parse_enabled("true")[1][0].hint
    assert parse_enabled(1)[1][0].hint == ""


# --- What is wrong with the shape ---


@pytest.mark.parametrize("raw", [None, [], "default", ("default",), UserDict()])
def test_pglb_must_be_a_dict(raw: object) -> None:
    """Anything else is named, and nothing is configured."""
    problem = only_problem(raw)
    assert problem.id is CheckId.NOT_A_DICT
    assert problem.message.startswith("PGLB: ")
    assert parsed(raw)[0] == Config()


@pytest.mark.parametrize(
    ("primary", "message"),
    [
        ("defualt", 'PGLB["defualt"]: not an alias in DATABASES; did you mean "default"?'),
        ("zzz", 'PGLB["zzz"]: not an alias in DATABASES.'),
        (7, "PGLB[7]: not an alias in DATABASES."),
        (("default",), "PGLB[a tuple]: not an alias in DATABASES."),
        ("REPLICAS", 'PGLB["REPLICAS"]: "REPLICAS" is a key of a cluster, one level further in.'),
    ],
)
def test_unknown_primary_drops_the_cluster(primary: object, message: str) -> None:
    """The message names what was typed and the nearest alias; other clusters stay."""
    config, problems = parsed({primary: {"REPLICAS": []}, "analytics": {"REPLICAS": []}})
    assert [(problem.id, problem.message) for problem in problems] == [(CheckId.UNKNOWN_PRIMARY, message)]
    assert list(config.clusters) == ["analytics"]


def test_cluster_must_be_a_dict() -> None:
    """A list of replicas directly under the primary is a likely slip."""
    assert only_problem({"default": ["replica1"]}).id is CheckId.CLUSTER_NOT_A_DICT


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("MAX_LAG_SECNDS", 'PGLB["default"]["MAX_LAG_SECNDS"]: unknown key; did you mean "MAX_LAG_SECONDS"?'),
        ("store", 'PGLB["default"]["store"]: unknown key; did you mean "STORE"?'),
        ("FAVOURITE_COLOUR", 'PGLB["default"]["FAVOURITE_COLOUR"]: unknown key.'),
    ],
)
def test_unknown_key_is_named_with_its_nearest(typed: str, message: str) -> None:
    """A mistyped key is quoted as it was typed; a far-fetched one gets no guess, but the list."""
    problem = problem_of(**{typed: 1})
    assert (problem.id, problem.message) == (CheckId.UNKNOWN_KEY, message)
    assert all(name in problem.hint for name in KEY_NAMES)


# --- REPLICAS ---


@pytest.mark.parametrize(
    ("replicas", "check", "says"),
    [
        ("replica1", CheckId.REPLICAS_IS_A_STRING, 'is one string, "replica1"; it must be a list'),
        (None, CheckId.WRONG_TYPE, "not None"),
        (2, CheckId.WRONG_TYPE, "not 2"),
        ({"replica1"}, CheckId.WRONG_TYPE, "not a set"),
        ([{"HOST": "db2", "PASSWORD": "hunter2"}], CheckId.WRONG_TYPE, "not a dict"),
        (["replca1"], CheckId.UNKNOWN_REPLICA, 'did you mean "replica1"?'),
        (["replica1", "replica1"], CheckId.REPLICA_TWICE, '"replica1" is listed twice'),
        (["default"], CheckId.REPLICA_IS_ITS_PRIMARY, '"default" is the primary itself'),
        ({"replica1": 2}, CheckId.WRONG_TYPE, '["replica1"]: must be a dict of options, not an int'),
        (
            {"replica1": {"WIEGHT": 2}},
            CheckId.UNKNOWN_REPLICA_OPTION,
            '["replica1"]["WIEGHT"]: unknown option of a replica; did you mean "WEIGHT"?',
        ),
        ({"replica1": {"WEIGHT": 0}}, CheckId.OUT_OF_RANGE, "must be more than 0"),
        ({"replica1": {"WEIGHT": "2"}}, CheckId.WRONG_TYPE, 'not "2"'),
        ({"replica1": {"POOLED": "no"}}, CheckId.WRONG_TYPE, 'True or False, not "no"'),
    ],
)
def test_replicas_that_cannot_be(replicas: object, check: CheckId, says: str) -> None:
    """Each slip in REPLICAS has its own words, under the setting's path."""
    problem = only_problem({"default": {"REPLICAS": replicas}})
    assert problem.id is check
    assert says in problem.message
    assert problem.message.startswith('PGLB["default"]["REPLICAS"]')


def test_replicas_must_be_there() -> None:
    """Leaving REPLICAS out is a mistake, since an empty list says the same on purpose."""
    assert only_problem({"default": {}}).id is CheckId.REPLICAS_MISSING


def test_a_replica_follows_one_primary() -> None:
    """The second cluster that lists it is told where it is listed first, and goes without it."""
    raw = {"default": {"REPLICAS": ["replica1"]}, "analytics": {"REPLICAS": ["replica1", "replica2"]}}
    config, (problem,) = parsed(raw)
    assert problem.id is CheckId.REPLICA_IN_TWO_CLUSTERS
    assert 'PGLB["default"]["REPLICAS"]' in problem.message
    assert config.primary_of["replica1"] == "default"
    assert config.clusters["analytics"].replicas == (ReplicaConfig(alias="replica2"),)


@pytest.mark.parametrize("order", [("default", "analytics"), ("analytics", "default")])
def test_a_replica_is_not_also_a_primary(order: tuple[str, str]) -> None:
    """Whichever cluster comes first, the alias stays the primary that it is."""
    replicas = {"default": ["analytics"], "analytics": []}
    config, (problem,) = parsed({primary: {"REPLICAS": replicas[primary]} for primary in order})
    assert problem.id is CheckId.REPLICA_IS_A_PRIMARY
    assert config.primary_of == {"default": "default", "analytics": "analytics"}


# --- Values ---

SECONDS = [
    "POINTER_SECONDS",
    "STICKY_SECONDS",
    "MAX_LAG_SECONDS",
    "CHECK_INTERVAL",
    "CHECK_TIMEOUT",
    "WAIT_SECONDS",
    "PRIMARY_BACKOFF",
    "READ_TIMEOUT",
]
BOOLEANS = ["COOKIE", "DEBUG_HEADER"]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [True, False, "30", b"30", [30], Decimal(30), timedelta(seconds=30), object()])
def test_seconds_are_numbers(name: str, value: object) -> None:
    """Nothing but int and float is a number of seconds, least of all a boolean."""
    problem = problem_of(**{name: value})
    assert problem.id is CheckId.WRONG_TYPE
    assert problem.message.startswith(f'PGLB["default"]["{name}"]: must be a number of seconds')


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400, 3_600_000_000])
def test_seconds_have_limits(name: str, value: float) -> None:
    """Negative, endless, undefined and absurd numbers are refused."""
    problem = problem_of(**{name: value})
    assert problem.id is CheckId.OUT_OF_RANGE
    assert len(problem.message) < 150


@pytest.mark.parametrize("name", [name for name in SECONDS if name not in {"WAIT_SECONDS", "PRIMARY_BACKOFF"}])
def test_zero_seconds_make_no_sense(name: str) -> None:
    """Zero is refused where it would mean never or always."""
    assert problem_of(**{name: 0}).id is CheckId.OUT_OF_RANGE


@pytest.mark.parametrize("name", [name for name in SECONDS if name not in {"MAX_LAG_SECONDS", "READ_TIMEOUT"}])
def test_none_is_no_number_of_seconds(name: str) -> None:
    """Only where that means no limit."""
    assert problem_of(**{name: None}).id is CheckId.WRONG_TYPE


@pytest.mark.parametrize(
    ("name", "value", "check", "says"),
    [
        *[(name, value, CheckId.WRONG_TYPE, "must be True or False") for name in BOOLEANS for value in (1, 0, None, "true")],
        ("PRIMARY_FALLBACK_LIMIT", 0, CheckId.OUT_OF_RANGE, "must be 1 to"),
        ("PRIMARY_FALLBACK_LIMIT", "5", CheckId.WRONG_TYPE, "must be a whole number or None"),
        ("PRIMARY_ATTEMPTS", 0, CheckId.OUT_OF_RANGE, "must be 1 to"),
        ("PRIMARY_ATTEMPTS", 10**400, CheckId.OUT_OF_RANGE, "a huge number"),
        ("PRIMARY_ATTEMPTS", 2.0, CheckId.WRONG_TYPE, "must be a whole number, not 2.0"),
        ("PRIMARY_ATTEMPTS", True, CheckId.WRONG_TYPE, "not True"),
        ("CONSISTENCY", "eventul", CheckId.NOT_A_CHOICE, 'did you mean "eventual"?'),
        ("CONSISTENCY", None, CheckId.WRONG_TYPE, 'one of "read_your_writes", "monotonic", "eventual", not None'),
        ("ON_STORE_ERROR", "Primary", CheckId.NOT_A_CHOICE, 'did you mean "primary"?'),
        ("ON_STORE_ERROR", "raise", CheckId.NOT_A_CHOICE, '"raise" is not a choice.'),
        ("REPLICA_METHODS", "GET", CheckId.METHODS_IS_A_STRING, 'is one string, "GET"'),
        ("REPLICA_METHODS", None, CheckId.WRONG_TYPE, "must be a list of method names"),
        ("REPLICA_METHODS", {"GET": True}, CheckId.WRONG_TYPE, "not a dict"),
        ("REPLICA_METHODS", ["GET", 7], CheckId.WRONG_TYPE, "not 7"),
        ("REPLICA_METHODS", ["get"], CheckId.METHOD_NOT_UPPER_CASE, '"get" matches no request'),
        ("REPLICA_METHODS", ["GET, HEAD"], CheckId.METHOD_NOT_A_NAME, '"GET, HEAD" is not the name'),
        ("REPLICA_METHODS", [""], CheckId.METHOD_NOT_A_NAME, '"" is not the name'),
        ("IDENTITY", "from_request", CheckId.NOT_A_DOTTED_PATH, '"from_request" is not a dotted path'),
        ("IDENTITY", "shop..identity", CheckId.NOT_A_DOTTED_PATH, "not a dotted path"),
        ("IDENTITY", len, CheckId.WRONG_TYPE, "must be a dotted path (a string), not a builtin_function_or_method"),
        ("STORE", "django_pglb.stores.CookieStore", CheckId.WRONG_TYPE, "must be a dict"),
        ("STORE", None, CheckId.WRONG_TYPE, "must be a dict, not None"),
        ("STORE", {"BACKEND": "cookies"}, CheckId.NOT_A_DOTTED_PATH, '["STORE"]["BACKEND"]: "cookies" is not a dotted path'),
        ("STORE", {"BACKEND": None}, CheckId.WRONG_TYPE, '["STORE"]["BACKEND"]: must be a dotted path'),
        ("STORE", {"CAHCE": "default"}, CheckId.UNKNOWN_STORE_OPTION, '["STORE"]["CAHCE"]: unknown option; did you mean "CACHE"?'),
        ("STORE", {"BACKND": "a.b"}, CheckId.UNKNOWN_STORE_OPTION, 'did you mean "BACKEND"?'),
        ("STORE", {"CACHE": 7}, CheckId.WRONG_TYPE, '["STORE"]["CACHE"]: must be an alias in CACHES, not 7'),
        (
            "STORE",
            {"BACKEND": "django_pglb.stores.CookieStore", "CACHE": "default"},
            CheckId.UNKNOWN_STORE_OPTION,
            "unknown option of django_pglb.stores.CookieStore",
        ),
    ],
)
def test_values_that_cannot_be(name: str, value: object, check: CheckId, says: str) -> None:
    """Each wrong value is refused under its own id, in words that show it."""
    problem = problem_of(**{name: value})
    assert problem.id is check
    assert says in problem.message
    assert problem.message.startswith(f'PGLB["default"]["{name}"]')


def test_one_run_shows_everything_and_keeps_the_rest() -> None:
    """What is wrong with one key costs that key only."""
    raw = {"default": {"REPLICAS": ["replica1", "nowhere"], "CHECK_TIMEOUT": "1", "COOKIE": 1, "STICKY_SECONDS": 90, "CHEK": 1}}
    config, problems = parsed(raw)
    assert len(problems) == 4
    assert config.clusters["default"] == ClusterConfig(primary="default", replicas=(ReplicaConfig(alias="replica1"),), sticky_seconds=90)


def test_clusters_share_one_identity() -> None:
    """A request is asked once who it acts for, so two answers cannot both be used."""
    config, (problem,) = parsed({"default": {"REPLICAS": []}, "analytics": {"REPLICAS": [], "IDENTITY": "shop.who"}})
    assert problem.id is CheckId.IDENTITIES_DIFFER
    assert problem.message.startswith('PGLB["analytics"]["IDENTITY"]')
    assert len(config.clusters) == 2


# --- POINTER_SECONDS against MAX_LAG_SECONDS ---


@pytest.mark.parametrize(("sticky", "warned"), [(20.9, True), (21, False)])
def test_pins_outlive_the_lag(sticky: float, warned: bool) -> None:
    """Whom no position can bind must stay on the primary for the allowed lag and a check interval (1 s)."""
    _, problems = parsed({"default": {"REPLICAS": ["replica1"], "MAX_LAG_SECONDS": 20, "STICKY_SECONDS": sticky}})
    assert [problem.id for problem in problems] == ([CheckId.STICKY_TOO_SHORT] if warned else [])


@pytest.mark.parametrize(("pointer", "warned"), [(30, True), (30.9, True), (31, False), (3600, False)])
def test_pointers_outlive_the_lag(pointer: float, warned: bool) -> None:
    """A pointer must live for the allowed lag, a check interval (1 s) and a long request (10 s)."""
    _, problems = parsed({"default": {"REPLICAS": ["replica1"], "MAX_LAG_SECONDS": 20, "POINTER_SECONDS": pointer}})
    assert [problem.id for problem in problems] == ([CheckId.POINTER_TOO_SHORT] if warned else [])
    assert not any(problem.is_error for problem in problems)


def test_unlimited_lag_is_warned_of_under_its_own_id() -> None:
    """None is a documented choice, so the warning can be silenced without silencing the other."""
    problem = problem_of(MAX_LAG_SECONDS=None, POINTER_SECONDS=30)
    assert problem.id is CheckId.LAG_UNLIMITED
    assert not problem.is_error


def test_without_replicas_no_lag_is_warned_of() -> None:
    """Where nothing can lag there is nothing to warn of."""
    assert parsed({"default": {"REPLICAS": [], "MAX_LAG_SECONDS": None}})[1] == ()


# --- Words ---


def test_ids_are_never_given_twice() -> None:
    """Errors and warnings are numbered from 001 each, in order. A gap is an id that nothing has taken yet."""
    ids = [str(check) for check in CheckId]
    assert [check for check in ids if not re.fullmatch(r"[EW]\d{3}", check)] == []
    assert len(CheckId.__members__) == len(set(ids))


@pytest.mark.parametrize(
    "secret",
    ["postgres://shop:hunter2@db1/shop", "host=db1 password=hunter2", {"PASSWORD": "hunter2"}, SimpleNamespace(p="hunter2")],
)
def test_messages_never_show_what_may_hold_a_password(secret: object) -> None:
    """Wherever a connection string or a dict of settings is put by mistake, its content stays out of the message."""
    places = [secret, {"default": secret}, {"default": {"REPLICAS": secret}}, {"default": {"REPLICAS": [secret]}}]
    places += [{"default": {"REPLICAS": [], key.name: secret}} for key in KEYS]
    if isinstance(secret, str):
        places += [{secret: {}}, {"default": {secret: 1, "REPLICAS": {secret: {secret: 1}}, "STORE": {secret: 1}}}]
    for raw in places:
        _, problems = parsed(raw)
        assert problems
        assert "hunter2" not in repr(problems)


def test_nearest_names() -> None:
    """A guess is made only where one is near, and case does not matter."""
    assert did_you_mean("Replica1", ["replica1", "other"]) == '; did you mean "replica1"?'
    assert did_you_mean("zzz", ["replica1"]) == ""
    assert did_you_mean(None, ["replica1"]) == ""


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from([*ALIASES, *KEY_NAMES]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.none() | st.integers() | st.sampled_from([*ALIASES, *KEY_NAMES]), inner),
)


@given(raw=anything | st.dictionaries(st.sampled_from(ALIASES), st.dictionaries(st.sampled_from(KEY_NAMES), anything)))
def test_nothing_breaks_the_parser(raw: object) -> None:
    """Whatever PGLB holds, there is a configuration of known aliases, and a reason for each thing that was left out."""
    config, problems = parsed(raw)
    assert config.primary_of.keys() <= set(ALIASES)
    assert all(problem.message.startswith("PGLB") for problem in problems)
    if not problems:
        assert isinstance(raw, dict)
        assert list(config.clusters) == list(raw)
