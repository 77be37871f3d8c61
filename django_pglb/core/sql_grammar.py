"""The parts of PostgreSQL's grammar that tell a read from a write, as tables over the tokens of `sql_tokens`.

A phrase is a tuple of words that stand directly before the word in question.
"""

from __future__ import annotations

from .harmless_functions import names
from .sql_tokens import LITERAL, QUOTED

Phrases = tuple[tuple[str, ...], ...]

QUERIES = frozenset({"select", "table", "values", "with"})
EXPLAINABLE = QUERIES | {"delete", "insert", "merge", "update"}
ANALYZE = frozenset({"analyze", "analyse"})
OFF = frozenset({"false", "off", LITERAL + "0"})

LOCKS: dict[str, Phrases] = {
    "share": (("for",), ("for", "key")),
    "update": (("for",), ("for", "no", "key")),
}
TELLTALES = frozenset({"delete", "insert", "into", "merge", "share", "update"})

NOT_A_NAME = frozenset("'()[],;.:=<>+-*/~!@#%^&|`?") | {""}

PG_CATALOG = (["pg_catalog"], [QUOTED + "pg_catalog"])

# Functions of PostgreSQL and what comes with it that do something and can be called with one argument, and how the names of others begin.
# PostgreSQL calls them also as a column of what stands in FROM: `SELECT f.nextval FROM to_regclass('s') AS f`. Only `pg_` and two others
# are nobody else's for the beginning of a name.
CALLED_AS_COLUMNS = names(
    """
    brin_summarize_new_values currval gin_clean_pending_list lo_close lo_creat lo_create lo_get lo_import lo_unlink nextval pg_file_sync
    pg_file_unlink set_limit setseed ts_stat
    """
)
CALLED_AS_COLUMNS_PREFIXES = (
    "binary_upgrade_",
    "dblink",
    "pg_advisory_",
    "pg_backup_",
    "pg_buffercache_evict",
    "pg_cancel_",
    "pg_create_",
    "pg_current_logfile",
    "pg_drop_",
    "pg_import_",
    "pg_log_",
    "pg_ls_",
    "pg_prewarm",
    "pg_promote",
    "pg_read_",
    "pg_replication_origin_",
    "pg_restore_",
    "pg_sequence_last_value",
    "pg_start_backup",
    "pg_stat_file",
    "pg_stat_reset",
    "pg_stat_statements_reset",
    "pg_stop_backup",
    "pg_sync_",
    "pg_terminate_",
    "pg_truncate_",
    "pg_try_",
)

# Words that no function can bear unquoted, in any version that is supported ("reserved" and "cannot be function or type" in
# https://www.postgresql.org/docs/current/sql-keywords-appendix.html): before a parenthesis they are syntax, or harmless themselves.
KEYWORDS = names(
    """
    all and any array as asc between bit both case cast char character coalesce current_time current_timestamp dec decimal desc
    distinct else except exists extract fetch float for from greatest group grouping having in intersect interval lateral leading
    least limit localtime localtimestamp nchar normalize not nullif numeric offset on only or order overlay position returning row
    select some substring symmetric then time timestamp to trailing trim union unique user using values varchar
    variadic when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
    xmlserialize xmltable
    """
)

# `f(SELECT …)` is a syntax error: a query as an argument needs parentheses of its own. So is `f(VALUES (…))`, but `f(values)` is not.
NEVER_AN_ARGUMENT = frozenset({"select", "table", "with"})
VALUES_LIST = ["values", "("]

# A name after these is an alias, a type, a CTE or a target, and its parenthesis holds columns or a type's modifiers.
NO_CALL_AFTER = frozenset({"::", "as", "into", "ordinality", "recursive", "with"})

# Words that a function could bear, and after which phrases they are syntax all the same.
NO_CALL_BETWEEN: dict[str, Phrases] = {
    "bernoulli": (("tablesample",),),
    "by": (("group",), ("order",), ("partition",)),
    "cube": (("group", "by"),),
    "first": (("fetch",),),
    "join": (("cross",), ("full",), ("inner",), ("left",), ("natural",), ("outer",), ("right",)),
    "materialized": (("as", "not"),),
    "next": (("fetch",),),
    "rollup": (("group", "by"),),
    "second": (("interval",),),
    "sets": (("grouping",),),
    "system": (("tablesample",),),
    "varying": (("bit",), ("char",), ("character",), ("nchar",)),
    "zone": (("time",),),
}
