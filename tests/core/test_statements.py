from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_pglb.core import statements
from django_pglb.core.harmless_functions import HARMLESS
from django_pglb.core.sql_grammar import KEYWORDS
from django_pglb.core.statements import Kind, classify, is_empty, judge

from .statement_corpus import DOUBTS, LOCKING_READS, READS, UNTRIED_READS, WRITES

# The machine may stall, and a run must not depend on luck.
properties = settings(deadline=None, derandomize=True)

CASES = [
    *((text, Kind.READ) for text in READS + UNTRIED_READS),
    *((text, Kind.LOCKING_READ) for text in LOCKING_READS),
    *((text, Kind.WRITE) for text in WRITES + DOUBTS),
]
# What can be cut and glued: without comments, backslashes and strings in several parts, so that a simple cut is a right one.
PLAIN_CASES = [(text, kind) for text, kind in CASES if not re.search(r"--|/\*|\\|\n|\x00|open", text)]
PARTS = re.compile(r"\$\w*\$.*?\$\w*\$|'(?:[^']|'')*'|\"[^\"]*\"|\s+|[^\s'\"$]+|.")
OPAQUE = ("'", '"', "$")

cases = st.sampled_from(CASES)
plain_cases = st.sampled_from(PLAIN_CASES)
queries = st.sampled_from([case for case in CASES if re.match(r"[(\s]*(SELECT|VALUES|TABLE|WITH)\b", case[0]) and ";" not in case[0]])
writes = st.sampled_from(["DELETE FROM book", "SELECT nextval('serial')", "INSERT INTO book VALUES (1)", "BEGIN", "SELECT 1 INTO x"])
words = st.sampled_from(
    [
        "DELETE FROM book",
        "nextval('serial')",
        "; DROP TABLE book; ",
        "INTO",
        "FOR UPDATE",
        "(",
        ")",
        "SELECT",
        "$$",
        "$a$",
        "/*x*/",
        "--",
        "",
    ]
)
hidden = st.lists(words | st.text(string.ascii_letters + " ;()", max_size=8), max_size=4).map(" ".join)
gaps = st.sampled_from([" ", "\n", "\t ", "\f", "/**/", " /* DELETE ' \" $$ */ ", "/* /* */ ; */", " -- INTO ' ;\n", "--\n"])
CALLS = ["visit(1)", "VISIT (1)", "public.visit(1)", '"visit"(1)', "visit/**/(1)", "other.lower('a')", "pg_catalog.nextval('serial')"]


EMPTY = {
    "": True,
    " ;\n;": True,
    "-- SELECT 1": True,
    "/* a /* b */ c */ ; -- d\n": True,
    "-- a\nSELECT 1": False,
    "(SELECT 1)": False,
    "/* a */ SELECT 1": False,
    "/* open": False,
    "1": False,
}


@pytest.mark.parametrize("text", EMPTY)
def test_text_without_a_statement(text: str) -> None:
    """Comments, whitespace and semicolons are no statement; in doubt there is one."""
    assert is_empty(text) is EMPTY[text]


@pytest.mark.parametrize(("text", "kind"), CASES)
def test_kind(text: str, kind: Kind) -> None:
    """Each statement of the corpus is what the corpus says."""
    assert classify(text) is kind


@properties
@given(plain_cases, st.data())
def test_whitespace_comments_and_case_change_nothing(case: tuple[str, Kind], data: st.DataObject) -> None:
    """What stands between the words, and how keywords and names are written, does not count."""
    text, kind = case
    parts = PARTS.findall(text)
    for index, part in enumerate(parts):
        if part.isspace():
            parts[index] = data.draw(gaps)
        elif not part.startswith(OPAQUE) and "%" not in part and data.draw(st.booleans()):
            parts[index] = part.swapcase()
    assert classify("".join(parts)) is kind


@properties
@given(cases, gaps, gaps)
def test_edges_change_nothing(case: tuple[str, Kind], before: str, after: str) -> None:
    """Whitespace, comments and semicolons around a statement do not count."""
    text, kind = case
    if not text.endswith(("open", "\x00")):
        assert classify(f"{before};{before}{text}\n{after}; ;{after}") is kind


@properties
@given(hidden)
def test_words_in_strings_names_and_comments_are_not_seen(text: str) -> None:
    """A read stays a read whatever it carries as a text, a name or a comment."""
    string_text, name, comment = text.replace("'", "''"), text.replace('"', '""'), text.replace("*/", "").replace("/*", "")
    line = text.replace("\n", " ")
    for read in (
        f"SELECT '{string_text}'",
        f"SELECT E'{string_text}\\''",
        f"SELECT U&'{string_text}'",
        f'SELECT "x{name}" FROM "{name}y"',
        f"SELECT 1 /* {comment} */, 2",
        f"SELECT 1 /* /* {comment} */ {comment} */, 2",
        f"SELECT 1 -- {line}\n, 2",
        f"SELECT $tag${text}$tag$",
    ):
        assert classify(read) is Kind.READ, read
        assert classify(read.replace("SELECT", "SELECT nextval('s'),", 1)) is Kind.WRITE, read
        assert classify(f"{read}; DELETE FROM book") is Kind.WRITE, read
        assert classify(f"{read}\nFROM book FOR UPDATE" if "FROM" not in read else f"{read}\nFOR UPDATE") is not Kind.READ, read


@properties
@given(st.from_regex(r"\A[a-z_][a-z0-9_]{0,5}\Z"), st.from_regex(r"\A[a-z_][a-z0-9_]{0,5}\Z"), hidden)
def test_dollar_quotes_end_at_their_own_tag(tag: str, other: str, text: str) -> None:
    """A dollar-quoted text holds other tags; what follows its own tag counts again."""
    inner = f"$$ ${other}$ {text}".replace(f"${tag}$", "")
    quoted = f"${tag}${inner}${tag}$"
    assert classify(f"SELECT {quoted}") is Kind.READ
    assert classify(f"SELECT {quoted}, nextval('s')") is Kind.WRITE
    assert classify(f"SELECT ${tag}${inner}") is Kind.WRITE


@properties
@given(queries, st.integers(1, 5))
def test_parentheses_around_a_query_change_nothing(case: tuple[str, Kind], depth: int) -> None:
    """A query is what it is in any number of parentheses."""
    text, kind = case
    if "--" not in text and "open" not in text:
        assert classify("(" * depth + text + ")" * depth) is kind


@properties
@given(cases, writes)
def test_a_write_in_the_same_text_makes_it_a_write(case: tuple[str, Kind], write: str) -> None:
    """Several statements are a write if one is."""
    text, _ = case
    assert classify(f"{text}\n; {write}") is Kind.WRITE
    assert classify(f"{write}; {text}") is Kind.WRITE


@properties
@given(st.lists(cases, max_size=5))
def test_several_statements_need_what_the_most_demanding_needs(chosen: list[tuple[str, Kind]]) -> None:
    """WRITE before LOCKING_READ before READ."""
    chosen = [(text, kind) for text, kind in chosen if not text.endswith(("open", "\x00"))]
    kinds = {kind for _, kind in chosen}
    expected = next((kind for kind in (Kind.WRITE, Kind.LOCKING_READ) if kind in kinds), Kind.READ)
    assert classify("\n;".join(text for text, _ in chosen)) is expected


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT {}",
        "SELECT 1, {} AS x",
        "SELECT upper({}::text)",
        "SELECT (SELECT {})",
        "SELECT 1 FROM {}",
        "SELECT 1 FROM book, {} AS x(a)",
        "SELECT 1 FROM book, {} AS (a int)",
        "SELECT 1 FROM book, {} AS materialized(a)",
        "SELECT 1 FROM book JOIN author ON {} > 1",
        "SELECT 1 FROM book JOIN author ON (true) JOIN {} ON (true)",
        "SELECT DISTINCT ON (id) {} FROM book",
        "SELECT CASE WHEN (true) THEN {} ELSE {} END",
        "SELECT 1 WHERE (1) BETWEEN (0) AND {}",
        "SELECT 1 IN (1, {})",
        "SELECT ARRAY[1, {}]",
        "SELECT 1 GROUP BY ROLLUP ({})",
        "SELECT sum(1) OVER (ORDER BY {})",
        "SELECT sum(1) FILTER (WHERE {} > 0)",
        "SELECT 1 ORDER BY {}",
        "SELECT 1 LIMIT {}",
        "SELECT now() AT TIME ZONE {}::text",
        "SELECT substring('a' FROM 1 FOR {})",
        "SELECT 'a' LIKE 'b' ESCAPE {}",
        "VALUES (1), ({})",
        "(SELECT 1) UNION (SELECT {})",
        "WITH x AS (SELECT {}) SELECT 1",
        "WITH x(a) AS (SELECT 1), y(b) AS (SELECT {}) SELECT 1",
        "COPY (SELECT {}) TO STDOUT",
        "EXPLAIN ANALYZE SELECT {}",
        "SELECT 1 FOR UPDATE OF a; SELECT {}",
        "SELECT a FROM book WHERE {} > 0 FOR UPDATE",
    ],
)
def test_a_call_of_an_unknown_function_is_found_anywhere(query: str, call: str) -> None:
    """Wherever a function can be called, calling one that is not known to be harmless is a write."""
    assert classify(query.replace("{}", call)) is Kind.WRITE
    assert classify(query.replace("{}", "lower('a')")) is not Kind.WRITE


@properties
@given(st.text() | st.text(string.printable) | st.lists(words | gaps | st.sampled_from(sorted(KEYWORDS))).map("".join))
def test_garbage_never_raises_and_is_a_write(text: str) -> None:
    """Any text gets an answer; it is a read only if it starts like one, or does nothing."""
    kind = classify(text)
    starts_like_a_read = re.match(r"(?is)(\s|--[^\n\r]*|/\*.*?\*/|;|\(|\*/)*(select|table|values|with|show|explain|copy)", text)
    does_nothing = not re.sub(r"(?s)/\*.*\*/|--[^\n\r]*|[\s;]", "", text)
    assert kind is Kind.WRITE or starts_like_a_read or does_nothing


@pytest.mark.parametrize("value", [None, 1, b"SELECT 1", ["SELECT 1"], object()])
def test_what_is_not_text_is_a_write(value: object) -> None:
    """Nothing is proved about what is not a text."""
    assert classify(value) is Kind.WRITE


@pytest.mark.parametrize("letter", ["\u212a", "\u0130", "\uff4e", "\u00a0"])
def test_letters_outside_ascii_make_another_name(letter: str) -> None:
    """A name that only looks like, or folds to, a harmless one is a call of something else."""
    assert classify(f"SELECT ran{letter}(1)") is Kind.WRITE
    assert classify(f"SELECT lower{letter}(1)") is Kind.WRITE


@pytest.mark.parametrize(
    "hostile",
    [
        "(",
        "/*",
        "$a",
        "$a$ $a$",
        "''",
        "e'",
        "1e",
        "f(1) as x,",
        " as f(a)",
        ";",
        "%%",
        "a.",
        "a.b(select)",
        "'%%",
        "--",
        "%s, ",
        '"',
        "\\",
    ],
)
def test_time_grows_no_faster_than_the_text(hostile: str) -> None:
    """The longest text that is looked at takes a fraction of a second, whatever it is made of."""
    text = ("SELECT " + hostile * statements.LONGEST_PROVED)[: statements.LONGEST_PROVED]
    started = time.process_time()
    judge(text)
    assert time.process_time() - started < 3


def test_longest_texts() -> None:
    """As many parameters as a statement may have are looked at; what is longer than any such statement is a write."""
    assert classify(f"SELECT * FROM book WHERE id IN ({', '.join(['%s'] * 65_535)})") is Kind.READ
    assert classify("SELECT 1" + " " * statements.LONGEST_PROVED) is Kind.WRITE


def test_memory_is_bounded() -> None:
    """No more texts are remembered than said, and none that is longer than said."""
    for number in range(statements.TEXTS_REMEMBERED + 100):
        classify(f"SELECT {number}")
    before = statements._remembered.cache_info()
    assert before.currsize == before.maxsize == statements.TEXTS_REMEMBERED
    long = "SELECT 1" + " " * statements.LONGEST_REMEMBERED
    assert classify(long) is classify(long) is Kind.READ
    assert statements._remembered.cache_info() == before


def test_an_equal_copy_is_remembered() -> None:
    """The text counts, not the object."""
    text = f"SELECT {'pages, ' * 40}1 FROM book"
    classify(text)
    hits = statements._remembered.cache_info().hits
    classify(text.encode().decode())
    assert statements._remembered.cache_info().hits == hits + 1


def test_tables_hold_names_as_tokens_come() -> None:
    """Every name in the tables is lower-case ASCII, or it would never match."""
    assert all(name == name.lower() and name.isascii() for name in HARMLESS | KEYWORDS)
