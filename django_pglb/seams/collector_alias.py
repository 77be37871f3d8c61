"""`Collector`: what goes with an object that is deleted is looked for where it is deleted.

Who deletes by the alias that an object came from, `obj.delete(using=obj._state.db)`, asks no router. Django looks for the objects that
depend on it before it opens the transaction, so a replica that is behind would show too few of them, and PostgreSQL refuse the rest.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from django.db.models.deletion import Collector

from .queryset_alias import where_written

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """Put ours around Django's `__init__`; safe to call again."""
    begin: Any = Collector.__init__
    if not hasattr(begin, "_pglb_seam"):
        Collector.__init__ = _at_home(begin)  # type: ignore[method-assign]


def _at_home(begin: Callable[..., None]) -> Any:
    @wraps(begin)
    def __init__(self: Collector, using: str, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        begin(self, where_written(using), *args, **kwargs)

    __init__._pglb_seam = True  # type: ignore[attr-defined]
    return __init__
