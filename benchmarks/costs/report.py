"""The section's Markdown: `page.md`, with the tables and numbers that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from redis.utils import HIREDIS_AVAILABLE

from ..section import table
from . import tables
from .contenders import CONTENDERS, PINNING_ROUTER
from .micro import Cells

Row = Mapping[str, float]
Rows = Mapping[str, Row]

PAGE = Path(__file__).with_name("page.md")
OURS = CONTENDERS["pglb"]
OTHERS = ("django-multidb-router", "django_replicated")
COUNTED = frozenset({tables.MORE_CALLS})


def text(cells: Cells, trips: Mapping[str, Rows]) -> str:
    """Return the whole section."""
    tables_made = {
        "trips": _trips(trips),
        "routing": _routing(cells[tables.ROUTING]),
        "idle_cursor": _pivot("statement", cells[tables.IDLE_CURSOR]),
        "real_cursor": _pivot("statement", cells[tables.REAL_CURSOR]),
        "classifier": _pivot("statement", cells[tables.CLASSIFIER]),
        "middleware": _pivot("request", cells[tables.MIDDLEWARE]),
        "store": _pivot("what", cells[tables.STORE]),
        "topology": _pivot("cluster", cells[tables.TOPOLOGY]),
    }
    return PAGE.read_text().format(**tables_made, **_beside_targets(cells), redis_parser=_redis_parser(), versions=_versions())


def _beside_targets(cells: Cells) -> dict[str, str]:
    """Return the numbers that the page names beside targets."""
    ours, base = cells[tables.ROUTING][OURS.routers[0]], cells[tables.ROUTING][PINNING_ROUTER]
    cursor, middleware = cells[tables.IDLE_CURSOR], cells[tables.MIDDLEWARE]
    with_creation, without = (f"{tables.ON_REPLICA}, {creation}" for creation in tables.CREATION)
    return {
        "routing_us": _us(ours[tables.DIRECT]),
        "routing_ratio": _ratio(ours, base, tables.DIRECT),
        "django_routing_us": _us(ours[tables.BY_DJANGO]),
        "django_routing_ratio": _ratio(ours, base, tables.BY_DJANGO),
        "cursor_us": _us(cursor[with_creation][tables.MORE]),
        "execute_us": _us(cursor[without][tables.MORE]),
        "anonymous_us": _us(middleware[tables.ANONYMOUS_NOTHING][OURS.title]),
        "anonymous_read_us": _us(middleware[tables.ANONYMOUS_READ][OURS.title]),
    }


def _trips(trips: Mapping[str, Rows]) -> str:
    rows = [[CONTENDERS[name].title, *(_messages(pages[page]) for page in tables.PAGES)] for name, pages in trips.items()]
    return table(["primary / replicas / Redis", *tables.PAGES], rows)


def _messages(trips: Row) -> str:
    return " / ".join(f"{count:.3g}" for count in trips.values())


def _routing(rows: Rows) -> str:
    columns = (tables.DIRECT, tables.BY_DJANGO)
    header = ["router", *(name for column in columns for name in (f"{column}, µs", "ratio"))]
    base = rows[PINNING_ROUTER]
    lines = [
        [f"`{name}`", *(text for column in columns for text in (_us(row[column]), _ratio(row, base, column)))] for name, row in rows.items()
    ]
    return table(header, lines)


def _ratio(row: Row, base: Row, column: str) -> str:
    return f"{row[column] / base[column]:.1f}"


def _pivot(what: str, rows: Rows) -> str:
    """Return a table of all rows, with the columns in the order in which they first appear."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    header = [what, *(column if column in COUNTED else f"{column}, µs" for column in columns)]
    return table(header, [[name, *(_cell(row.get(column), column) for column in columns)] for name, row in rows.items()])


def _cell(number: float | None, column: str) -> str:
    if number is None:
        return "–"
    return f"{number:.0f}" if column in COUNTED else _us(number)


def _us(microseconds: float) -> str:
    return f"{microseconds:.2f}" if abs(microseconds) < 100 else f"{microseconds:,.0f}"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in OTHERS)


def _redis_parser() -> str:
    return "with hiredis" if HIREDIS_AVAILABLE else "without hiredis"
