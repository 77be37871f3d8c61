"""Which tables a replica's role may not read, though the primary's role may: such reads fail over to the primary, each time.

Grants belong to roles, and roles are replicated. So this concerns replicas that are read by a role of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_TABLES: LiteralString = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
  LATERAL (SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS may_read) r
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""

READABLE: LiteralString = "SELECT c.oid::int8" + _TABLES + " AND r.may_read"
UNREADABLE: LiteralString = (
    "SELECT c.oid::int8, quote_ident(n.nspname), quote_ident(pg_get_userbyid(c.relowner)), quote_ident(current_user)"
    + _TABLES
    + " AND NOT r.may_read"
)

ADVICE = (
    "The role {role} may not read {count} of the tables that the primary's role may read, so the primary answers for them."
    " On the primary run GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};"
    " ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role};"
)


class Unreadable(NamedTuple):
    """One row of the answer to `UNREADABLE`; names are quoted where SQL needs it."""

    oid: int
    schema: str
    owner: str
    role: str


def advise(readable_on_primary: Sequence[tuple[Any, ...]], unreadable: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return what to do about it, for each schema and owner. A table has the same OID on every host."""
    on_primary = {oid for (oid,) in readable_on_primary}
    missing = [table for row in unreadable if (table := Unreadable(*row)).oid in on_primary]
    places: Collection[tuple[str, str]] = sorted({(table.schema, table.owner) for table in missing})
    return [
        ADVICE.format(
            role=missing[0].role,
            count=sum((table.schema, table.owner) == (schema, owner) for table in missing),
            schema=schema,
            owner=owner,
        )
        for schema, owner in places
    ]
