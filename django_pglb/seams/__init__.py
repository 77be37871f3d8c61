"""The three places in Django, outside the engines and what Django has for extension, where this package steps in.

Each has a file of its own, which says why nothing that Django offers would do. Ours stands around Django's own, which is always called, so
that others can step in there as well. On what belongs to no cluster none of them changes anything. `docs/django.md` names all three.
"""

from __future__ import annotations

from . import generic_prefetch, queryset_alias, view_calls


def install() -> None:
    """Step in. Call it when all models are there; safe to call again."""
    generic_prefetch.install()
    queryset_alias.install()
    view_calls.install()
