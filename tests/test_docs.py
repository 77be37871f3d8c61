"""The reference pages say what the code does: no setting, check or reason is missing, and none is made up."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from django_pglb.core.config import ClusterConfig, ReplicaConfig, StoreConfig
from django_pglb.core.config_keys import KEY_NAMES, KEYS, REPLICA_KEYS, STORE_OPTIONS
from django_pglb.core.config_parser import parse
from django_pglb.core.decision import Reason
from django_pglb.core.problem import CheckId

DOCS = Path(__file__).parent.parent / "docs"
SETTINGS, CHECKS, REASONS = ((DOCS / name).read_text() for name in ("settings.md", "checks.md", "reasons.md"))


def section(page: str, heading: str) -> str:
    """The text below a heading (its level included), up to the next one that is not deeper."""
    level = len(heading.split()[0])
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows whose first cell is code."""
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]


def default_of(key_field: str, config: type[ClusterConfig | ReplicaConfig] = ClusterConfig) -> Any:
    field = next(field for field in fields(config) if field.name == key_field)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def as_typed(value: Any) -> Any:
    """A default as a user would type it."""
    if isinstance(value, StoreConfig):
        return {"BACKEND": value.backend, **{name.upper(): option for name, option in value.options.items()}}
    return sorted(value) if isinstance(value, frozenset) else value


def test_every_key_is_described_and_none_is_made_up() -> None:
    """The headings are the keys, in the order of the table in the code."""
    assert re.findall(r"^### `(\w+)`$", section(SETTINGS, "## Keys of a cluster"), re.MULTILINE) == list(KEY_NAMES)


FOLLOW_DEBUG = ("GUARD_STALE_SAVES", "DEBUG_HEADER")


@pytest.mark.parametrize("key", [key for key in KEYS if key.name not in FOLLOW_DEBUG], ids=lambda key: key.name)
def test_documented_defaults_are_the_codes(key: Any) -> None:
    """`Default: …` below a key's heading is what the field has."""
    match = re.search(r"^Default: `(.*)`\.$", section(SETTINGS, f"### `{key.name}`"), re.MULTILINE)
    assert match
    assert ast.literal_eval(match[1]) == as_typed(default_of(key.field))


def test_documented_options_of_a_replica_are_the_codes() -> None:
    """The table below REPLICAS has each option with its default."""
    documented = {name: default for name, default, _ in rows(section(SETTINGS, "### `REPLICAS`"))}
    assert documented == {key.name: repr(default_of(key.field, ReplicaConfig)) for key in REPLICA_KEYS}


def test_documented_stores_are_ours() -> None:
    """The table below STORE has our stores with their options."""
    documented = {name: tuple(re.findall(r"\w+", options)) for name, options, *_ in rows(section(SETTINGS, "### `STORE`"))}
    assert documented == STORE_OPTIONS


def test_documented_settings_are_acceptable() -> None:
    """Each example of PGLB gives a configuration and no problem."""
    examples = re.findall(r"```python\n(PGLB = .*?)```", SETTINGS, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        scope: dict[str, Any] = {}
        exec(example, scope)
        aliases = ["default", "replica1", "replica2", "analytics", "analytics_replica"]
        config, problems = parse(scope["PGLB"], enabled=True, debug=False, database_aliases=aliases)
        assert problems == ()
        assert list(config.clusters) == list(scope["PGLB"])


@pytest.mark.parametrize(("heading", "letter"), [("## Errors", "E"), ("## Warnings", "W")])
def test_every_check_is_described_once(heading: str, letter: str) -> None:
    """Each table has the ids of its severity, in order, each once."""
    described = [row[0] for row in rows(section(CHECKS, heading))]
    assert described == sorted(f"django_pglb.{check}" for check in CheckId if check.startswith(letter))


def test_every_check_says_what_and_what_to_do() -> None:
    """No cell is empty, and no two checks describe the same problem."""
    table = rows(CHECKS)
    assert all(len(row) == 3 and all(row) for row in table)
    assert len({row[1] for row in table}) == len(table)


def test_every_reason_is_described_once() -> None:
    """The table has the reasons in the order of the code."""
    assert [row[0] for row in rows(REASONS)] == [reason.value for reason in Reason]


def test_every_package_that_is_tried_is_in_the_table() -> None:
    """`tox -e others` has a journey for each row of the page, and the page a row for each journey."""
    journeys = (Path(__file__).parent / "others" / "journeys").glob("[!_]*.py")
    packages = [re.search(r'^PACKAGE = "(.*)"$', journey.read_text(), re.MULTILINE) for journey in journeys]
    table = section((DOCS / "working-with-other-packages.md").read_text(), "## Tried")
    assert [row[0] for row in rows(table)] == sorted(found[1] for found in packages if found)
