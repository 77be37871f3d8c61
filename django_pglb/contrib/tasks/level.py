"""Says how one task reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ...jobs import as_consistency

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def db_consistency(level: str) -> Callable[[T], T]:
    """Return a decorator that lets a task read as `level` says: `"always"`, `"sticky"` or `"delayed"`.

    Put it above or below `@task()`, on functions of either kind. Raises `ImproperlyConfigured` for what is no level.
    """

    def decorate(task_or_function: T) -> T:
        function: Any = getattr(task_or_function, "func", task_or_function)
        # A task itself is frozen, and copied by `using()`.
        function.db_consistency = as_consistency(level, of=function.__qualname__)
        return task_or_function

    return decorate
