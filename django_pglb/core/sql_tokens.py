"""SQL text as tokens, the way PostgreSQL's scanner would cut it; where the cut is in doubt, no tokens at all.

Facts that the patterns rest on (https://www.postgresql.org/docs/current/sql-syntax-lexical.html):

1. Only ASCII letters fold to lower case for certain, so a word with any other letter stays as it is.
2. Whitespace is six ASCII characters; any other "space" is a letter of a name.
3. Block comments nest. A comment may start in the middle of what looks like an operator.
4. With `standard_conforming_strings = off`, a backslash in a plain string escapes. The setting differs between sessions and is
   not ours to know. The only pair of characters that moves a string's end is a backslash and a quote, so that pair is refused.
5. psycopg replaces placeholders (`%s`, `%b`, `%t`, `%(name)s`) everywhere, also inside quotes and comments, where the
   quotes of the value may end what they stand in. A placeholder in there is refused; `%%` and other percent signs are not.
6. psycopg takes any name in `%(name)s`, quotes and comments in it included; only plain ones are accepted.
7. Without parameters psycopg leaves `%s` alone, and it is the operator `%` and a column. So it is refused next to a letter or a digit.
"""

from __future__ import annotations

import re

LITERAL = "'"
"""A literal or a placeholder. Numbers keep their text behind it, so that `0` can be told from `1`."""

QUOTED = '"'
"""A quoted identifier starts with it. Its text follows, unless it has escapes."""


class NotProvable(Exception):
    """The text is not provably a read."""


_START = r"A-Za-z_\x80-\U0010ffff"
_PART = r"A-Za-z0-9_$\x80-\U0010ffff"

_TOKEN = re.compile(
    rf"""
    [\ \t\n\r\f\v]*+
    (?:
        (?P<literal>
            [eE] ' (?: [^'\\]++ | '' | \\. )*+ '
          | (?: [bBxXnN] | [uU]& )? ' (?: [^'\\]++ | '' | \\[^'] )*+ '
        )
      | (?P<unicode> [uU]& " (?: [^"]++ | "" )*+ " )
      | (?P<word> [{_START}] [{_PART}]*+ )
      | (?P<quoted> " (?: [^"]++ | "" )*+ " )
      | (?P<line> -- [^\n\r]*+ )
      | (?P<block> /\* )
      | (?P<number>
            (?: 0[xXoObB][0-9A-Fa-f_]++ | (?: [0-9][0-9_]*+ (?: \. [0-9_]*+ )? | \.[0-9][0-9_]*+ ) (?: [eE][+-]?[0-9][0-9_]*+ )? )
            (?! [{_PART}] )
        )
      | (?P<symbol> :: | [()\[\],;.:=<>+*/~!@\#^&|`?-] | % (?! [sbt(] ) )
      | (?P<placeholder>
            (?<! [{_PART}] )
            (?: % (?: \( [A-Za-z0-9_]+ \) )? [sbt] | \$[0-9]+ )
            (?! [{_PART}] )
            (?: ,\ ?%s (?! [{_PART}] ) )*+  # a long IN list costs one token
        )
      | (?P<dollar> \$ (?: [{_START}] [A-Za-z0-9_\x80-\U0010ffff]*+ )? \$ )
      | \Z
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_HIDDEN_PLACEHOLDER = re.compile(r"(?<!%)(?:%%)*+%[sbt(]")
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def tokenize(sql: str) -> list[str]:
    """Return the tokens: words in lower case, symbols, `LITERAL` and `QUOTED` ones. Comments leave none.

    Raises `NotProvable` where PostgreSQL might cut the text in another way, or not at all. Time grows linearly with the text.
    """
    if "\0" in sql:
        raise NotProvable  # the server reads no further
    tokens: list[str] = []
    match_token = _TOKEN.match
    position = 0
    while match := match_token(sql, position):
        kind, position = match.lastgroup, match.end()
        if kind is None:
            return tokens
        text = match[kind]
        if kind == "word":
            tokens.append(text.lower() if text.isascii() else text)
        elif kind == "symbol":
            tokens.append(text)
        elif kind == "block":
            position = _comment_end(sql, position)
        elif kind == "dollar":
            position = _dollar_quote_end(sql, position, text)
            tokens.append(LITERAL)
        else:
            tokens += _opaque(kind, text)
    raise NotProvable


def _opaque(kind: str, text: str) -> tuple[str, ...]:
    """Return the token of what has been cut out whole."""
    if kind == "number":
        return (LITERAL + text,)
    if kind == "placeholder":
        return (LITERAL,)
    _refuse_placeholders(text)
    if kind == "quoted":
        return (text[:-1],)
    if kind == "unicode":
        return (QUOTED,)
    return (LITERAL,) if kind == "literal" else ()


def _comment_end(sql: str, position: int) -> int:
    """Return where the block comment that opened before `position` ends."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            _refuse_placeholders(sql[position : edge.start()])
            return edge.end()
    raise NotProvable


def _dollar_quote_end(sql: str, position: int, tag: str) -> int:
    """Return where the dollar-quoted string that opened before `position` ends."""
    end = sql.find(tag, position)
    if end < 0:
        raise NotProvable
    _refuse_placeholders(sql[position:end])
    return end + len(tag)


def _refuse_placeholders(text: str) -> None:
    if "%" in text and _HIDDEN_PLACEHOLDER.search(text):
        raise NotProvable
