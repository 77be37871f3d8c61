"""`get_prefetch_querysets` of generic foreign keys: tells the router whose relation is read, of which Django gives it a hint elsewhere.

Without it the objects that belong to rows from the primary would be
looked for on a replica, and taken for missing where it is behind.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from django.apps import apps

from ..conf import get_usable_config
from ..context import read_related_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "get_prefetch_querysets"


def install() -> None:
    """Put ours around Django's method; safe to call again."""
    if not apps.is_installed("django.contrib.contenttypes"):
        return
    from django.contrib.contenttypes import fields

    # Django 6.1 has moved it to a descriptor.
    owner = getattr(fields, "GenericForeignKeyDescriptor", fields.GenericForeignKey)
    method = getattr(owner, NAME)
    if not hasattr(method, "_pglb_seam"):
        setattr(owner, NAME, _with_hint(method))


def _with_hint(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def get_prefetch_querysets(self: Any, instances: Sequence[Any], querysets: Any = None) -> Any:
        clusters = get_usable_config().clusters
        primary = next((each._state.db for each in instances if each._state.db in clusters), None)
        if primary is None:
            return method(self, instances, querysets)
        with read_related_to(primary):
            return method(self, instances, querysets)

    get_prefetch_querysets._pglb_seam = True  # type: ignore[attr-defined]
    return get_prefetch_querysets
