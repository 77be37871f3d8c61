"""What sites name in `PREPARE`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from psycopg.sql import SQL, Identifier

from .engines import tenant

told: list[str] = []
"""For whom a session was prepared, in order."""
where: ContextVar[str] = ContextVar("where", default="")


def setting(connection: Any) -> None:
    """Tell nothing where there is no tenant."""
    told.append(tenant.get())
    if tenant.get() != "nobody":
        connection.execute("SELECT set_config('app.tenant', %s, false)", [tenant.get()])


def role(connection: Any) -> None:
    told.append(tenant.get())
    if tenant.get() != "nobody":
        with connection.cursor() as cursor:
            cursor.execute(SQL("SET ROLE {}").format(Identifier(tenant.get())))


def path(connection: Any) -> None:
    told.append(tenant.get())
    if tenant.get() != "nobody":
        connection.execute(SQL("SET search_path TO {}, public").format(Identifier(tenant.get())))


def function(connection: Any) -> None:
    """Tell by a function of the site's own, of which nothing can be known."""
    told.append(tenant.get())
    if tenant.get() != "nobody":
        connection.execute("SELECT become(%s)", [tenant.get()])


def streamed(connection: Any) -> None:
    """Tell by what psycopg's cursors offer besides `execute()`."""
    told.append(tenant.get())
    if tenant.get() != "nobody":
        with connection.cursor() as cursor:
            list(cursor.stream("SELECT set_config('app.tenant', %s, false)", [tenant.get()]))


def copied(connection: Any) -> None:
    told.append(tenant.get())
    if tenant.get() != "nobody":
        copy = "COPY (SELECT set_config('app.tenant', %s, false)) TO STDOUT"
        with connection.cursor() as cursor, cursor.copy(copy, [tenant.get()]) as rows:
            list(rows)


async def awaited(connection: Any) -> None:
    """Tell never: nobody awaits it."""


def failing(connection: Any) -> None:
    connection.execute("SELECT set_config('app.tenant', 'half', false)")
    if tenant.get() == "nobody":
        raise PermissionError("nobody may not")
    connection.execute("SELECT set_config('app.tenant', %s, false)", [tenant.get()])


NOT_CALLABLE = 1
