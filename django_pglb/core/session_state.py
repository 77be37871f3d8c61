"""What a statement leaves behind in its database session, beyond its transaction: no WAL position carries that to a replica.

Only what the classifier takes for a write can do it, so a plain read is never looked at. What a function of the user's own does is not
seen. Where the text could be read in two ways, it counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from .sql_tokens import QUOTED, NotProvable, tokenize
from .statements import LONGEST_PROVED, LONGEST_REMEMBERED, TEXTS_REMEMBERED, Kind, judge_statement, statements_of

if TYPE_CHECKING:
    from collections.abc import Callable

# What a session may carry that is no setting: a setting's name has no space in it.
TEMPORARY = "temporary objects"
PREPARED = "prepared statements"
LISTENING = "channels listened to"
HELD = "held cursors"
TRANSACTION = "an open transaction"
LOCKS = "advisory locks"
LIBRARIES = "loaded libraries"
SEED = "the random seed"
UNKNOWN = "unknown state"

# These do not go with the rollback of the transaction in which they came.
OUTLIVE_ROLLBACK = frozenset({PREPARED, LIBRARIES, LOCKS, SEED, UNKNOWN})

# What a statement may take away.
ALL_SETTINGS = "all settings"
EVERYTHING = "everything"
CACHED = "cached plans or sequences"
RESETS = frozenset({ALL_SETTINGS, EVERYTHING, CACHED, TEMPORARY})

# Several settings, which RESET does not know by this name.
UNDONE_OTHERWISE = frozenset({"session_characteristics"})

# https://www.postgresql.org/docs/current/sql-reset.html: RESET ALL leaves these two alone.
ROLES = frozenset({"role", "session_authorization"})


class SessionChange(NamedTuple):
    """What one text does to the session that it runs in."""

    sets: frozenset[str] = frozenset()
    """What the session carries from now on."""
    ends: frozenset[str] = frozenset()
    """What it carries no more."""
    locks: int = 0
    """How many calls take an advisory lock, less those that release one."""

    @property
    def matters(self) -> bool:
        """Whether the unit of work that does this has to stay in the session: to end a lock or a transaction changes no answer."""
        return bool(self.sets) or self.locks > 0 or any(name in RESETS or " " not in name for name in self.ends)

    def repeated(self) -> SessionChange:
        """Return what it does as often as there are rows, or parameters: then nobody knows how many locks have to be released."""
        return self if self.locks <= 0 else SessionChange(self.sets | {LOCKS}, self.ends)

    def then(self, other: SessionChange) -> SessionChange:
        """Return what both do, one after the other."""
        kept = frozenset(name for name in self.sets if not other._ends(name))
        return SessionChange(kept | other.sets, self.ends | other.ends, self.locks + other.locks)

    def _ends(self, name: str) -> bool:
        if name in self.ends or EVERYTHING in self.ends:
            return True
        return ALL_SETTINGS in self.ends and " " not in name and name not in ROLES


class SessionState(NamedTuple):
    """What one database session carries that its user has left in it."""

    carried: frozenset[str] = frozenset()
    locks: int = 0

    def after(self, change: SessionChange) -> SessionState:
        """Return what is carried once a statement that does `change` has come to its end."""
        kept = frozenset(name for name in self.carried if not change._ends(name))
        locks = 0 if EVERYTHING in change.ends or LOCKS in change.ends else max(self.locks + change.locks, 0)
        return SessionState(kept | change.sets, locks)

    def joined(self, other: SessionState) -> SessionState:
        """Return what is carried at most where it is the one or the other."""
        return SessionState(self.carried | other.carried, max(self.locks, other.locks))

    def rolled_back(self, before: SessionState) -> SessionState:
        """Return what is carried after the rollback of a transaction that has begun with `before`: also what was reset in it."""
        return SessionState(before.carried | (self.carried & OUTLIVE_ROLLBACK), self.locks)

    @property
    def is_clean(self) -> bool:
        return not (self.carried or self.locks)


CLEAN = SessionState()
NO_CHANGE = SessionChange()
ENDED = SessionChange(ends=frozenset({TRANSACTION}))


def session_change(sql: str) -> SessionChange | None:
    """Return what `sql` leaves behind in its session; None if it leaves nothing and ends nothing. Safe to call from any thread."""
    return _remembered(sql) if len(sql) <= LONGEST_REMEMBERED else _change_by(sql)


def _change_by(sql: str) -> SessionChange | None:
    leader = _LEADER.match(sql)
    if leader and leader[1].lower() in CALLERS and not _may_call(sql):
        return None  # as nearly every write: not cut into tokens
    change = NO_CHANGE
    try:
        for tokens in statements_of(tokenize(sql) if len(sql) <= LONGEST_PROVED else _not_cut()):
            change = change.then(_change_by_statement(tokens, sql))
    except NotProvable:
        change = _sets(UNKNOWN) if _TELLTALE.search(sql) else NO_CHANGE
    return None if change == NO_CHANGE else change


def settings_made(sql: str) -> frozenset[str] | None:
    """Return the names of the settings that `sql` makes, which has no placeholders; None if it may do more than that and read.

    Meant for what is sent in preparation of a session, which is to be undone.
    """
    change = NO_CHANGE
    try:
        for tokens in statements_of(tokenize(sql)):
            if tokens[0] != "set":
                as_read = ["concat" if _plain(token) == "set_config" else token for token in tokens]
                if judge_statement(as_read) is not Kind.READ:
                    return None
            change = change.then(_change_by_statement(tokens, sql))
    except NotProvable:
        return None
    known = not change.locks and all(" " not in name and name not in UNDONE_OTHERWISE for name in change.sets)
    return change.sets if known else None


def _not_cut() -> NoReturn:
    raise NotProvable


_remembered = lru_cache(TEXTS_REMEMBERED)(_change_by)

_LEADER = re.compile(r"[\s(]*([A-Za-z]+)")
# What begins so can change a session only by what it calls, or by a temporary table that it makes.
CALLERS = frozenset({"copy", "delete", "explain", "insert", "merge", "select", "table", "update", "values", "with"})
_MAY_CALL = (
    ";",
    "advisory",
    "dblink_connect",
    "pg_settings",
    "session_setup",
    "set_config",
    "set_limit",
    "set_session",
    "set_user",
    "setseed",
    "temp",
    'u&"',
)


def _may_call(sql: str) -> bool:
    # Searching for plain words one after another takes a fiftieth of what an expression with them all takes, and bulk inserts are long.
    lower = sql.lower()
    return any(word in lower for word in _MAY_CALL)


_CALLS = r"set_config | _advisory_ (?! \w* xact) | setseed | set_limit | set_user | set_session | session_setup | dblink_connect"
_MAKES = r"\b temp (?: orary )? \b | \b pg_temp \b"
_SETS = r"set \b (?! \s+ (?: local | transaction | constraints ) \b ) | (?: reset | discard | listen | load ) \b"
# For a text that cannot be cut: a statement may begin after anything that ends a comment or another one.
_TELLTALE = re.compile(
    rf"{_CALLS} | {_MAKES} | (?: ^ | ; | \*/ ) \s* (?: {_SETS} | (?: prepare | execute | begin | start ) \b | declare \b .* \b hold \b )",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
# For a block of code, which may hold its statements in texts.
_TELLTALE_IN_CODE = re.compile(
    rf"{_CALLS} | {_MAKES} | (?: ^ | ; | \*/ | ' | \$ | \b begin | \b then | \b else | \b loop ) \s* (?: {_SETS} )",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)


def _change_by_statement(tokens: list[str], sql: str) -> SessionChange:
    by_command = COMMANDS.get(tokens[0])
    if by_command is not None:
        return by_command([_plain(token) for token in tokens[1:]])
    if tokens[0] == "do" and _TELLTALE_IN_CODE.search(sql):
        return _sets(UNKNOWN)
    return _change_by_calls(tokens, sql)


def _plain(token: str) -> str:
    return token[1:].lower() if token.startswith(QUOTED) else token


def _sets(name: str) -> SessionChange:
    return SessionChange(sets=frozenset({name}))


def _ends(*names: str) -> SessionChange:
    return SessionChange(ends=frozenset(names))


# --- Statements that are about the session ---


def _set(words: list[str]) -> SessionChange:
    if words[:1] == ["session"] and words[1:2] not in (["authorization"], ["characteristics"]):
        words = words[1:]
    if not words or words[0] in {"local", "constraints", "transaction"}:
        return NO_CHANGE  # they end with their transaction
    name, value = _name_and_value(words)
    return _ends(name) if value in (["default"], ["none"]) and (value == ["default"] or name == "role") else _sets(name)


def _reset(words: list[str]) -> SessionChange:
    return _ends(ALL_SETTINGS) if words == ["all"] else _ends(_name_and_value(words)[0])


def _name_and_value(words: list[str]) -> tuple[str, list[str]]:
    """Return the name of the setting that `words` begin with, as `set_config()` takes it, and what follows."""
    for phrase, name in SPELLINGS.items():
        if tuple(words[: len(phrase)]) == phrase:
            return name, words[len(phrase) :]
    end = next((index for index, word in enumerate(words) if word in {"=", "to"}), len(words))
    return "".join(words[:end]) or UNKNOWN, words[end + 1 :]


SPELLINGS = {
    ("names",): "client_encoding",
    ("role",): "role",
    ("schema",): "search_path",
    ("session", "authorization"): "session_authorization",
    ("session", "characteristics"): "session_characteristics",
    ("time", "zone"): "timezone",
    ("xml", "option"): "xmloption",
}


def _discard(words: list[str]) -> SessionChange:
    return _ends({"all": EVERYTHING, "temp": TEMPORARY, "temporary": TEMPORARY}.get("".join(words), CACHED))


def _prepare(words: list[str]) -> SessionChange:
    return ENDED if words[:1] == ["transaction"] else _sets(PREPARED)


def _deallocate(words: list[str]) -> SessionChange:
    return _ends(PREPARED) if words[-1:] == ["all"] else NO_CHANGE


def _declare(words: list[str]) -> SessionChange:
    return _sets(HELD) if ("with", "hold") in pairwise(words) else NO_CHANGE


def _commit(words: list[str]) -> SessionChange:
    return NO_CHANGE if words[-2:] == ["and", "chain"] else ENDED


def _rollback(words: list[str]) -> SessionChange:
    return NO_CHANGE if "to" in words else _commit(words)


COMMANDS: dict[str, Callable[[list[str]], SessionChange]] = {
    "abort": _rollback,
    "begin": lambda words: _sets(TRANSACTION),
    "close": lambda words: _ends(HELD) if words == ["all"] else NO_CHANGE,
    "commit": _commit,
    "deallocate": _deallocate,
    "declare": _declare,
    "discard": _discard,
    "end": _commit,
    "execute": lambda words: _sets(PREPARED),
    "listen": lambda words: _sets(LISTENING),
    "load": lambda words: _sets(LIBRARIES),
    "prepare": _prepare,
    "reset": _reset,
    "rollback": _rollback,
    "set": _set,
    "start": lambda words: _sets(TRANSACTION),
    "unlisten": lambda words: _ends(LISTENING) if words == ["*"] else NO_CHANGE,
}


# --- What other statements call and make ---

_NAMED_IN_TEXT = re.compile(r"set_config\"?\s*\(\s*'([A-Za-z_][A-Za-z0-9_.]*)'", re.IGNORECASE)
SETTERS = {
    "dblink_connect": UNKNOWN,
    "dblink_connect_u": UNKNOWN,
    "pg_replication_origin_session_setup": UNKNOWN,
    "set_limit": "pg_trgm.similarity_threshold",
    "set_session_auth": UNKNOWN,
    "set_user": UNKNOWN,
    "setseed": SEED,
}
TEMP = frozenset({"temp", "temporary"})
PG_SETTINGS = frozenset({"pg_settings", QUOTED + "pg_settings"})


def _change_by_calls(tokens: list[str], sql: str) -> SessionChange:
    change, unnamed = NO_CHANGE, 0
    for index, token in enumerate(tokens):
        name, is_called = _plain(token), tokens[index + 1 : index + 2] == ["("] or tokens[max(index - 1, 0)] == "."
        if not is_called:
            continue
        if token == QUOTED:
            change = change.then(_sets(UNKNOWN))  # written with escapes, so it may be any name
        elif name == "set_config" and not _is_local(tokens, index + 1):
            unnamed += 1
        elif name in SETTERS:
            change = change.then(_sets(SETTERS[name]))
        elif "advisory_" in name and "xact" not in name:
            locking = _change_of_locks(name)
            change = change.then(locking.repeated() if "from" in tokens else locking)
    if unnamed:
        names = _NAMED_IN_TEXT.findall(sql)
        found = {name.lower() for name in names} if len(names) == sql.lower().count("set_config") else {UNKNOWN}
        change = change.then(SessionChange(frozenset(found)))
    if "update" in tokens and not PG_SETTINGS.isdisjoint(tokens):
        change = change.then(_sets(UNKNOWN))  # a rule of that view makes it a call of set_config()
    return change.then(_sets(TEMPORARY)) if _makes_temporary(tokens) else change


def _change_of_locks(name: str) -> SessionChange:
    if name == "pg_advisory_unlock_all":
        return _ends(LOCKS)
    return SessionChange(locks=-1 if "unlock" in name else 1)


def _is_local(tokens: list[str], opening: int) -> bool:
    """Say whether the last argument of the call whose parenthesis is at `opening` is plainly true."""
    depth = 0
    argument: list[str] = []
    for token in tokens[opening:]:
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0:
            break
        argument = [] if depth == 1 and token in {"(", ","} else [*argument, token]
    return argument in (["true"], ["is_local", "=", ">", "true"])


def _makes_temporary(tokens: list[str]) -> bool:
    if not {"pg_temp", QUOTED + "pg_temp"}.isdisjoint(tokens):
        return True
    start = tokens.index("create") if tokens[0] == "explain" and "create" in tokens else 0
    if tokens[start] == "create":
        kind = next((index for index, word in enumerate(tokens) if word in {"recursive", "sequence", "table", "view"}), 0)
        ends_with_transaction = ("on", "commit", "drop") in zip(tokens, tokens[1:], tokens[2:], strict=False)
        return not (TEMP.isdisjoint(tokens[start:kind]) or ends_with_transaction)
    return any(_is_into_temporary(tokens, index) for index, word in enumerate(tokens) if word == "into")


def _is_into_temporary(tokens: list[str], index: int) -> bool:
    """Say whether INTO at `index` makes a table, which INSERT INTO and MERGE INTO do not."""
    after = tokens[index + 1 : index + 3]
    word = after[-1:] if after[:1] in (["local"], ["global"]) else after[:1]
    return tokens[index - 1] not in {"insert", "merge"} and not TEMP.isdisjoint(word)
