"""The block that `ATOMIC_REQUESTS` puts around a view: it needs no primary until something in it does.

Django connects to the primary, or checks how its connection is, in order to open a block. A page that only reads from replicas would pay
for that, and fail while the primary is down. Only the block around the view of a request with a safe method waits; all others are Django's.

1. `Atomic.__enter__` asks `get_autocommit()`, which connects, and calls `set_autocommit(False)`, which checks the connection and connects.
   Both answer from memory, and the beginning of the transaction is owed. A block that Django puts around the same view for a replica's
   alias is part of it, see `transactions`.
2. Whatever uses the connection calls `ensure_connection()` first: cursors, savepoints, `get_autocommit()`. There it is made good.
3. Connecting resets all that Django knows of the block, so that is put aside meanwhile.
4. `Atomic.__exit__` commits or rolls back, which is nothing where nothing has begun, and calls `set_autocommit(True)`.
"""

from __future__ import annotations

from asyncio import _get_running_loop  # the documented one raises where there is none
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

from ..conf import get_config
from ..context import current_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from django.db.backends.postgresql.base import DatabaseWrapper

    class Base(DatabaseWrapper):
        """What the mixins stand on, with the private members that the stubs leave out."""

        health_check_enabled: bool
        health_check_done: bool
        isolation_level: psycopg.IsolationLevel
        _thread_ident: int

        def _cursor(self, name: str | None = None) -> Any: ...
        def _commit(self) -> None: ...
        def _rollback(self) -> None: ...
        def _configure_connection(self, connection: Any) -> bool: ...

else:
    Base = object

# What connecting and closing forget of an open block.
BLOCK = (
    "in_atomic_block",
    "savepoint_ids",
    "atomic_blocks",
    "needs_rollback",
    "run_on_commit",
    "pglb_writers",
    "pglb_views_blocks",
    "_pglb_owes_begin",
)


class ViewBlock(Base):
    """Mix into a `DatabaseWrapper`: the part that opens and ends blocks."""

    pglb_views_blocks = 0
    """How many of the outermost blocks that are open are those around the view: one for each alias of the cluster that asks for it."""
    _pglb_owes_begin = False
    """Whether that block has not needed the connection yet, which may be there, in whatever condition."""

    def pglb_set_autocommit(self, autocommit: bool, *, force: bool, is_views: bool) -> None:
        """Do what `set_autocommit` does. `is_views`: it is the block around the view that is opened."""
        self.pglb_views_blocks = int(is_views)
        if is_views and (self.connection is None or (self.health_check_enabled and not self.health_check_done)):
            self._pglb_owe_begin()
        elif autocommit and self._pglb_owes_begin:
            self._pglb_end_without_beginning()
        else:
            super().set_autocommit(autocommit, force)

    def ensure_connection(self) -> None:
        if self._pglb_owes_begin:
            self._pglb_begin()
        # Django's asks for an event loop by an exception, which costs as much as the rest of a cursor.
        if self.connection is None or _get_running_loop() is not None:
            super().ensure_connection()

    def close(self) -> None:
        if not self._pglb_owes_begin:
            super().close()
            return
        # Nothing has happened in the block, so it can go on with another connection. So does a check that finds this one broken.
        with self._pglb_outside_block():
            super().close()

    def _commit(self) -> None:
        if not self._pglb_owes_begin:
            super()._commit()

    def _rollback(self) -> None:
        if not self._pglb_owes_begin:
            super()._rollback()

    def pglb_is_views_block_unused(self) -> bool:
        """Say whether no other block is open than the one around the view, and no statement has run in it."""
        if not 0 < len(vars(self)["atomic_blocks"]) <= self.pglb_views_blocks:
            return False
        # Below psycopg's description of the connection: every read of the page asks this.
        is_idle = self.connection is not None and self.connection.pgconn.transaction_status == TransactionStatus.IDLE
        return self._pglb_owes_begin or is_idle

    def pglb_opens_views_block(self, alias: str) -> bool:
        """Say whether a block that is opened by `alias` now is the one around the view of a request with a safe method."""
        routing = current_scope().routing
        if routing is None or alias not in routing.view_atomic or not routing.is_safe_in(self.alias) or self.in_atomic_block:
            return False
        # A replica whose transaction is its own is read in it.
        is_primary = self.alias not in get_config().replicas
        return is_primary and bool(self.settings_dict["AUTOCOMMIT"]) and (self.connection is None or self.autocommit)

    def pglb_widen_views_block(self) -> None:
        """Take one more block for the one around the view."""
        if self.pglb_views_blocks:
            self.pglb_views_blocks += 1

    def _pglb_claim_views_block(self) -> bool:
        """Let every later block of this request on this alias be an ordinary one. Says whether this one is the view's."""
        routing = current_scope().routing
        if routing is None or self.alias not in routing.view_atomic:
            return False
        routing.view_atomic -= {self.alias}
        return True

    def _pglb_owe_begin(self) -> None:
        if self.connection is None:
            # As connecting would have done.
            self.savepoint_ids, self.atomic_blocks, self.run_on_commit = [], [], []
            self.closed_in_transaction = False
        self._pglb_owes_begin = True

    def _pglb_begin(self) -> None:
        """Begin what the open block owes. If that fails it is still owed, and the block may go on without."""
        with self._pglb_outside_block():
            super().set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
        self._pglb_owes_begin = False

    def _pglb_end_without_beginning(self) -> None:
        self.validate_no_atomic_block()
        self._pglb_owes_begin = False
        if self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    @contextmanager
    def _pglb_outside_block(self) -> Iterator[None]:
        """Act on the connection in here as if no block were open."""
        kept = {name: getattr(self, name) for name in BLOCK}
        self._pglb_owes_begin = self.in_atomic_block = False
        try:
            yield
        finally:
            vars(self).update(kept)
