"""The five places in Django, outside the engines and what Django has for extension, where this package steps in.

Each has a file of its own, which says why nothing that Django offers would do. Ours stands around Django's own, which is always called, so
that others can step in there as well. On what belongs to no cluster none of them changes anything. `docs/django.md` names them all.
"""

from __future__ import annotations

from . import collector_alias, generic_prefetch, queryset_alias, subqueries, view_calls


def install() -> None:
    """Step in. Call it when all models are there; safe to call again."""
    collector_alias.install()
    generic_prefetch.install()
    queryset_alias.install()
    subqueries.install()
    view_calls.install()
