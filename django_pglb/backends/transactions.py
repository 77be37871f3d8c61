"""Whose transaction it is that is opened on a replica's alias: the primary's.

Django and its packages open blocks on the alias that an object came from: around `delete()` and `update_or_create()`, in
`atomic(using=obj._state.db)`, for each alias that has `ATOMIC_REQUESTS`. What is written there goes to the primary, so that is where it
must be committed and rolled back. All that Django keeps of an open block is therefore the primary's connection's, by whichever alias it is
asked for, and blocks on several aliases of a cluster nest in each other as on one.

1. The owner of an alias' transaction is the primary's connection of the same thread.
2. Inside `use_replicas()` it is the replica's own connection, unless a transaction is open on the primary, or its session has been told
   what no replica knows: those are never left.
3. A transaction of the replica's own stays one until it ends, wherever that is.
4. What Django does to a connection itself, connecting, checking and closing it, means that very connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import Error

from .. import placement
from ..conf import get_config
from ..context import current_scope
from ..engine import MIRROR_OF, connection_to
from .view_block import ViewBlock

if TYPE_CHECKING:
    from ..core.routing_session import RoutingSession
    from ..engine import Connection


class OfTransaction:
    """An attribute of the transaction that is open: its owner has it."""

    def __set_name__(self, cls: type, name: str) -> None:
        self._name = name

    def __get__(self, db: Any, cls: type | None = None) -> Any:
        if db is None:
            return self
        # Before all else, as a block on the primary asks for twenty of these.
        if db._pglb_means_itself or get_config().home_of.get(db.alias, db.alias) == db.alias:
            return db.__dict__[self._name]
        return db.pglb_transaction_owner().__dict__[self._name]

    def __set__(self, db: Any, value: Any) -> None:
        if db._pglb_means_itself or get_config().home_of.get(db.alias, db.alias) == db.alias:
            db.__dict__[self._name] = value
        else:
            db.pglb_transaction_owner().__dict__[self._name] = value


class OpenBlock(OfTransaction):
    """Whether a block is open."""

    def __set__(self, db: Any, value: Any) -> None:
        super().__set__(db, value)
        if value or db._pglb_means_itself:
            return
        owner = db.pglb_transaction_owner()
        if owner is not db and owner.closed_in_transaction:
            # The connection was closed in the block that ends here, and Django is about to let go of it: by the alias of the block.
            owner.connection = None
            db.close()


class TransactionOfPrimary(ViewBlock):
    """Mix into a `DatabaseWrapper`: the part that has a transaction, or knows whose it is."""

    in_atomic_block: Any = OpenBlock()
    atomic_blocks = OfTransaction()
    commit_on_exit = OfTransaction()
    closed_in_transaction = OfTransaction()
    needs_rollback = OfTransaction()
    rollback_exc = OfTransaction()
    run_on_commit = OfTransaction()
    savepoint_ids = OfTransaction()

    _pglb_means_itself = True
    """Whether what is asked of a transaction is asked of this connection: while it is made, connected, checked or closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pglb_means_itself = False

    # --- Whose it is ---

    def pglb_transaction_owner(self) -> Any:
        """Return the connection whose transaction a block on this alias is part of, or would be. Never connects."""
        home = None if self._pglb_means_itself else get_config().home_of.get(self.alias)
        # Nothing is begun with autocommit on, nor is it switched on again before the end.
        if home is None or home == self.alias or (not self.autocommit and self.pglb_has_own_transaction):
            return self
        primary, scope = connection_to(home), current_scope()
        if scope.forced == "replicas" and scope.routing is not None and self._pglb_may_have_own(primary, scope.routing):
            return self
        # A test case that has the mirror and not the primary among its databases opens a block on the mirror.
        return self if self.settings_dict["TEST"].get(MIRROR_OF) is not None and primary.pglb_is_forbidden else primary

    def _pglb_may_have_own(self, primary: Connection, routing: RoutingSession) -> bool:
        """Say whether nothing keeps a unit of work on `primary` that is inside `use_replicas()`."""
        is_replica = self.alias in get_config().replicas
        return is_replica and not (primary.pglb_in_transaction() or placement.has_session_state(routing.cluster(primary.alias)))

    @property
    def pglb_has_own_transaction(self) -> bool:
        """Whether a transaction is open on this very connection, as far as Django knows. Never connects."""
        has_autocommit_off = self.connection is not None and not self.autocommit and self.settings_dict["AUTOCOMMIT"]
        return self.__dict__["in_atomic_block"] or has_autocommit_off

    # --- What means this connection ---

    def connect(self) -> None:
        before, self._pglb_means_itself = self._pglb_means_itself, True
        try:
            super().connect()
        finally:
            self._pglb_means_itself = before

    def close(self) -> None:
        before, self._pglb_means_itself = self._pglb_means_itself, True
        try:
            super().close()
        finally:
            self._pglb_means_itself = before

    def close_if_unusable_or_obsolete(self) -> None:
        if self.connection is None:
            return  # Django asks each alias as each request begins and ends
        before, self._pglb_means_itself = self._pglb_means_itself, True
        try:
            super().close_if_unusable_or_obsolete()
        finally:
            self._pglb_means_itself = before

    def validate_no_broken_transaction(self) -> None:
        # Asked before a statement runs on this connection. On a replica's it is in no transaction but the replica's own.
        if self.pglb_transaction_owner() is self:
            super().validate_no_broken_transaction()

    # --- What its owner does ---

    def get_autocommit(self) -> bool:
        if self._pglb_means_itself:
            return super().get_autocommit()
        owner = self.pglb_transaction_owner()
        if owner.connection is None and owner.pglb_opens_views_block(self.alias):
            return True
        return super().get_autocommit() if owner is self else bool(owner.get_autocommit())

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        owner = self.pglb_transaction_owner()
        # Only a block forces; somebody who calls this means the connection.
        opens = force_begin_transaction_with_broken_autocommit and not autocommit
        is_views = opens and owner.pglb_opens_views_block(self.alias)
        if opens:
            self._pglb_claim_views_block()
        owner.pglb_set_autocommit(autocommit, force=force_begin_transaction_with_broken_autocommit, is_views=is_views)

    def commit(self) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().commit()
        else:
            owner.commit()

    def rollback(self) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().rollback()
            return
        try:
            owner.rollback()
        except Error:
            # Django drops a connection that cannot roll back: by the alias of the block, which is not the one that is broken.
            owner.close()
            raise

    def savepoint(self) -> str | None:
        owner = self.pglb_transaction_owner()
        if self._pglb_claim_views_block():
            # Django puts a block around the view for each alias. Where they are all the same transaction's, they are one.
            owner.pglb_widen_views_block()
            return None
        return super().savepoint() if owner is self else owner.savepoint()

    def savepoint_rollback(self, sid: str) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().savepoint_rollback(sid)
        else:
            owner.savepoint_rollback(sid)

    def savepoint_commit(self, sid: str) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().savepoint_commit(sid)
        else:
            owner.savepoint_commit(sid)

    def clean_savepoints(self) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().clean_savepoints()
        else:
            owner.clean_savepoints()

    def on_commit(self, func: Any, robust: bool = False) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().on_commit(func, robust)
        else:
            owner.on_commit(func, robust)

    def run_and_clear_commit_hooks(self) -> None:
        owner = self.pglb_transaction_owner()
        if owner is self:
            super().run_and_clear_commit_hooks()
        else:
            owner.run_and_clear_commit_hooks()
