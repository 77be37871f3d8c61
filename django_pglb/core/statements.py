"""Whether a statement is provably a read.

The proof is by elimination. In PostgreSQL a query changes something only if

1. it starts with a word that does not stand in `JUDGES`;
2. INSERT, UPDATE, DELETE, MERGE or INTO stands in it as a word, not as a name or a text;
3. it locks rows (`FOR UPDATE` and its relatives);
4. it calls a function that does. A call is a name before a parenthesis, unless the grammar leaves no room for one there.

Where the text could be read in two ways, it is not a read. A text that PostgreSQL rejects may get any answer: it does nothing.
What no text shows stays unseen: a view, an operator, a cast, a column default or a row security policy that calls a function which
writes; a function of a table's row that is written as its column (`t.name`); a user's own overload of a built-in name.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING

from .harmless_functions import HARMLESS
from .sql_grammar import (
    ANALYZE,
    CALLED_AS_COLUMNS,
    CALLED_AS_COLUMNS_PREFIXES,
    EXPLAINABLE,
    KEYWORDS,
    LOCKS,
    NEVER_AN_ARGUMENT,
    NO_CALL_AFTER,
    NO_CALL_BETWEEN,
    NOT_A_NAME,
    OFF,
    PG_CATALOG,
    QUERIES,
    TELLTALES,
    VALUES_LIST,
)
from .sql_tokens import LITERAL, QUOTED, NotProvable, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .sql_grammar import Phrases

# Ten thousand characters hold any statement that is written by hand, and two thousand texts any site's working set;
# together they bound the memory at about 20 MB (80 MB if all of them had characters of four bytes).
# What is longer carries its data in the text and does not come back.
LONGEST_REMEMBERED = 10_000
TEXTS_REMEMBERED = 2_000

# Holds an IN list of as many parameters as a statement may have (65,535). The proof costs 0.1 to 1 µs a character, and
# twice that for nothing but parentheses, so beyond that a needless pointer is the cheaper answer.
LONGEST_PROVED = 300_000


class Kind(Enum):
    """What a statement is, of which follows where it may run."""

    READ = auto()  # may run on a hot standby
    LOCKING_READ = auto()  # locks rows, so it needs the primary, but leaves nothing that a later read could miss
    WRITE = auto()  # everything else


def classify(sql: object) -> Kind:
    """Return what `sql` needs. Never raises; anything but a text is a write. Safe to call from any thread."""
    if not isinstance(sql, str):
        return Kind.WRITE
    return _remembered(sql) if len(sql) <= LONGEST_REMEMBERED else judge(sql)


def judge(sql: str) -> Kind:
    """Return what `sql` needs, without remembering it. An empty text is a read: it does nothing."""
    leader = _LEADER.match(sql)
    if len(sql) > LONGEST_PROVED or (leader and leader[1].lower() not in JUDGES):
        return Kind.WRITE
    try:
        kinds = {judge_statement(tokens) for tokens in statements_of(tokenize(sql))}
    except NotProvable:
        return Kind.WRITE
    return Kind.LOCKING_READ if Kind.LOCKING_READ in kinds else Kind.READ


def is_empty(sql: str) -> bool:
    """Say whether there is plainly no statement in `sql`, but comments at most, so that the server has no result for it."""
    if _LEADER.match(sql):
        return False
    try:
        return set(tokenize(sql)) <= {";"}
    except NotProvable:
        return False


_remembered = lru_cache(TEXTS_REMEMBERED)(judge)

# Spares writes, which may be long, from being cut into tokens. Not a proof: a comment may stand first.
_LEADER = re.compile(r"[\s(]*([A-Za-z]+)")


def statements_of(tokens: list[str]) -> Iterator[list[str]]:
    """Yield the tokens of each statement that is not empty."""
    start = 0
    for end in [*(index for index, symbol in enumerate(tokens) if symbol == ";"), len(tokens)]:
        if end > start:
            yield tokens[start:end]
        start = end + 1


def judge_statement(tokens: list[str]) -> Kind:
    judge_tokens = _judge_query if tokens[0] == "(" else JUDGES.get(tokens[0])
    if judge_tokens is None:
        raise NotProvable
    return judge_tokens(tokens)


def _judge_query(tokens: list[str]) -> Kind:
    """SELECT and its relatives, with any parentheses around them."""
    if _leader(tokens) not in QUERIES:
        raise NotProvable
    return _Query(tokens).kind()


def _judge_show(tokens: list[str]) -> Kind:
    return Kind.READ


def _judge_explain(tokens: list[str]) -> Kind:
    """Without ANALYZE nothing is executed, but the planner may call functions, so those still count."""
    runs, statement = _explained(tokens)
    if runs:
        return _judge_query(statement)
    if _leader(statement) not in EXPLAINABLE:
        raise NotProvable
    return _Query(statement, runs=False).kind()


def _explained(tokens: list[str]) -> tuple[bool, list[str]]:
    """Return whether EXPLAIN runs the statement, and the statement."""
    if tokens[1:2] == ["("] and _leader(tokens[1:]) not in QUERIES:
        end = _closing(tokens, 1)
        return _asks_for_analyze(tokens[2:end]), tokens[end + 1 :]
    start = 1
    while tokens[start : start + 1] and tokens[start] in {"verbose", *ANALYZE}:
        start += 1
    return not ANALYZE.isdisjoint(tokens[1:start]), tokens[start:]


def _asks_for_analyze(options: list[str]) -> bool:
    """Say whether any option in the list may turn ANALYZE on. Option names may be quoted, so a quoted one may be it."""
    return any(
        option.startswith(QUOTED) or (option in ANALYZE and "".join(options[index + 1 : index + 2]) not in OFF)
        for index, option in enumerate(options)
    )


def _judge_copy(tokens: list[str]) -> Kind:
    """COPY of a table or a query to the client. Files and programs are the server's, and FROM writes."""
    end = _closing(tokens, 1) if tokens[1:2] == ["("] else 1
    target = next((index for index in range(end, len(tokens)) if tokens[index] in {"to", "from"}), end)
    if tokens[target : target + 2] != ["to", "stdout"]:
        raise NotProvable
    return _judge_query(tokens[1 : end + 1]) if end > 1 else Kind.READ


def _leader(tokens: list[str]) -> str:
    return next((word for word in tokens if word != "("), "")


def _closing(tokens: list[str], opening: int) -> int:
    """Return the index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index], 0)
        if not depth:
            return index
    raise NotProvable


class _Paren(Enum):
    """What a parenthesis turned out to be, where that matters at its end."""

    PLAIN = auto()
    AN_EXPRESSION_MAY_FOLLOW = auto()  # DISTINCT ON (…) expression
    MUST_BE_CTE = auto()  # `, name (…)`: a call, unless AS (SELECT follows


class _Query:
    """One walk through a query's tokens that stops at the first thing that is not provably harmless."""

    __slots__ = ("closed", "found", "parens", "runs", "tokens")

    def __init__(self, tokens: list[str], *, runs: bool = True) -> None:
        self.tokens = tokens
        self.runs = runs
        self.parens: list[_Paren] = []
        self.closed = _Paren.PLAIN
        self.found = Kind.READ

    def kind(self) -> Kind:
        for index, word in enumerate(self.tokens):
            if word == "(":
                self.parens.append(self.opened(index))
            elif word == ")":
                self.close(index)
            elif word == ".":
                self.qualify(index)
            elif word in TELLTALES and self.runs:
                self.see(index, word)
        if self.parens:
            raise NotProvable
        return self.found

    def see(self, index: int, word: str) -> None:
        """Judge a word that may announce a write or a lock."""
        if self.follows(index, LOCKS.get(word, ())):
            self.found = Kind.LOCKING_READ
        elif word != "share" and not self.is_label(index):
            raise NotProvable

    def is_label(self, index: int) -> bool:
        """Say whether the word at `index` is a name, after `.` or `AS`; `as` may itself be one, as in `AS as INTO`."""
        before = self.before(index)
        return before == "." or (before == "as" and self.before(index - 1) not in {".", "as"})

    def qualify(self, index: int) -> None:
        """Judge what stands around a dot. `(value).f`, `value[1].f` and, with server-side binding, `%s.f` are calls of `f`."""
        after = self.tokens[index + 1 : index + 2]
        name = after[0].removeprefix(QUOTED) if after else ""
        if name in CALLED_AS_COLUMNS or name.startswith(CALLED_AS_COLUMNS_PREFIXES) or after == [QUOTED]:
            raise NotProvable  # what is written with escapes may be any name
        if self.before(index)[:1] in {LITERAL, ")", "]"} and after != ["*"]:
            raise NotProvable

    def opened(self, index: int) -> _Paren:
        """Judge what stands before a parenthesis."""
        name = self.before(index)
        if name[:1] == LITERAL or name == "operator":
            # `%s(` is a modulo and a call of `s` where there are no parameters. After `OPERATOR(…)` an expression follows.
            raise NotProvable
        if name[:1] in NOT_A_NAME:
            return _Paren.PLAIN
        if name in KEYWORDS and self.before(index - 1) != ".":
            return _Paren.AN_EXPRESSION_MAY_FOLLOW if name in {"on", "with"} else _Paren.PLAIN
        return self.called(index, name)

    def called(self, index: int, name: str) -> _Paren:
        """Judge a name before the parenthesis at `index`, which is a call unless the grammar leaves no room for one."""
        start = self.start_of_name(index - 1)
        schema = self.tokens[start : index - 2]
        if (not schema or schema in PG_CATALOG) and name.removeprefix(QUOTED) in HARMLESS:
            return _Paren.PLAIN
        if self.starts_query(index + 1):
            return _Paren.PLAIN
        before = self.before(start)
        if before in NO_CALL_AFTER or self.follows(start, NO_CALL_BETWEEN.get(name, ())) or self.is_operand(start - 1):
            return _Paren.PLAIN
        if before == ",":
            return _Paren.MUST_BE_CTE
        raise NotProvable

    def start_of_name(self, index: int) -> int:
        """Return where the name that ends at `index` starts, its qualifiers included."""
        while index > 1 and self.tokens[index - 1] == "." and self.tokens[index - 2][:1] not in NOT_A_NAME:
            index -= 2
        return index

    def is_operand(self, index: int) -> bool:
        """Say whether the token at `index` ends a value or a name, after which no call can follow."""
        word = self.before(index + 1)
        if word == ")":
            return self.closed is not _Paren.AN_EXPRESSION_MAY_FOLLOW
        return word[:1] in {LITERAL, QUOTED, "]"} or (word[:1] not in NOT_A_NAME and self.before(index) == ".")

    def close(self, index: int) -> None:
        if not self.parens:
            raise NotProvable
        self.closed = self.parens.pop()
        if self.closed is _Paren.MUST_BE_CTE and not self.is_cte_body(index + 1):
            raise NotProvable

    def is_cte_body(self, index: int) -> bool:
        """Say whether a CTE's query starts at `index`. `AS (column type, …)` may follow a call, `AS (SELECT` cannot."""
        if self.tokens[index : index + 1] != ["as"]:
            return False
        index += 1
        while self.tokens[index : index + 1] in (["not"], ["materialized"]):
            index += 1
        return self.tokens[index : index + 1] == ["("] and self.starts_query(index + 1)

    def starts_query(self, index: int) -> bool:
        """Say whether what stands at `index`, behind a parenthesis, can be no argument of a function."""
        return self.tokens[index : index + 2] == VALUES_LIST or (
            self.tokens[index : index + 1] != [] and self.tokens[index] in NEVER_AN_ARGUMENT
        )

    def before(self, index: int) -> str:
        return self.tokens[index - 1] if index > 0 else ""

    def follows(self, index: int, phrases: Phrases) -> bool:
        """Say whether one of the phrases stands directly before `index`."""
        return any(tuple(self.tokens[max(index - len(phrase), 0) : index]) == phrase for phrase in phrases)


JUDGES: dict[str, Callable[[list[str]], Kind]] = {
    **dict.fromkeys(QUERIES, _judge_query),
    "copy": _judge_copy,
    "explain": _judge_explain,
    "show": _judge_show,
}
"""The words that a read may start with."""
