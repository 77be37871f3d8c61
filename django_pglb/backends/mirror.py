"""The cursor of a test mirror: who watches the mirror's connection sees its statements, and who watches the primary's does not.

In a test case's transaction they run on the primary's connection, where alone the test's rows can be seen.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

from ..core.decision import Decision, Reason
from ..engine import connection_to
from .cursor import RoutedCursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.statements import Kind


class MirrorCursor(RoutedCursor):
    """A cursor on an alias that a test runner has made a mirror."""

    @property
    def _wrapper(self) -> type[CursorWrapper]:
        return CursorDebugWrapper if self.requested.queries_logged else CursorWrapper

    def _place(self, kind: Kind) -> None:
        if not connection_to(self._primary).pglb_is_forbidden:
            super()._place(kind)
            return
        # A test case that has the mirror and not the primary among its databases: its transaction is the mirror's, too.
        self._kind, self._failed_at = kind, inf
        self._open_placed(Decision(self.requested.alias, Reason.EXPLICIT))

    def _execute_with_wrappers(self, sql: Any, params: Any, many: bool, executor: Callable[..., Any]) -> Any:
        for wrapper in reversed(self.requested.execute_wrappers):
            executor = partial(wrapper, executor)
        return executor(sql, params, many, {"connection": self.requested, "cursor": self})

    @contextmanager
    def debug_sql(self, *args: Any, **options: Any) -> Iterator[None]:
        try:
            with super().debug_sql(*args, **options):
                yield
        finally:
            if self.db is not self.requested:
                self.requested.queries_log.append(self.db.queries_log.pop())
