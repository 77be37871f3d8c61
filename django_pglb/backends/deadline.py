"""Waits for the primary's position no longer than until a deadline: where it has frozen, nobody else must stand still for that.

Deadlines are moments of the process's clock.
"""

from __future__ import annotations

import selectors
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ExecStatus

from ..health.clock import now
from .position import texts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .position import Texts

TOO_LATE = "the primary did not answer in time"


def ask_by(deadline: float, connection: psycopg.Connection[Any], statement: bytes) -> Texts:
    """Ask in a message of its own, outside a transaction. Raises psycopg's errors; what has not answered by then is closed.

    Below psycopg, which waits for as long as it takes.
    """
    pgconn = connection.pgconn
    pgconn.send_query(statement)
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        while pgconn.is_busy():
            # An answer that is there counts, however late a starved process comes to look.
            if not selector.select(max(deadline - now(), 0)):
                # Nothing is said to the server, which would have to answer, too.
                pgconn.finish()
                raise psycopg.OperationalError(TOO_LATE)
            pgconn.consume_input()
    result = pgconn.get_result()
    while pgconn.get_result() is not None:
        pass
    if result is None or result.status != ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result) if result is not None else psycopg.OperationalError("the server gave no answer")
    return texts_of(result)


def connect_by(deadline: float, connect: Callable[[], Any], let_go: Callable[[Any], None]) -> Any:
    """Return the connection that `connect` makes, in a thread of its own: names are looked up, and pools waited for, without a limit.

    One that is there after the deadline is given to `let_go`.
    """
    made: Future[Any] = Future()

    def run() -> None:
        try:
            connection = connect()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            made.set_exception(error)
        else:
            made.set_result(connection)

    threading.Thread(target=run, name="django-pglb-connect", daemon=True).start()
    try:
        return made.result(max(deadline - now(), 0))
    except TimeoutError:
        made.add_done_callback(lambda late: let_go(late.result()) if late.exception() is None else None)
        raise psycopg.OperationalError(TOO_LATE) from None
