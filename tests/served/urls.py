"""One path per view, named after it."""

from __future__ import annotations

from django.urls import path

from . import mixed_views, views

NAMES = {
    views: ("register", "sign_in", "whoami", "topology"),
    mixed_views: ("a_register", "gathered", "async_in_sync", "sync_in_async", "streamed", "raise_later", "raised_later"),
}

urlpatterns = [path(f"{name}/", getattr(module, name), name=name) for module, names in NAMES.items() for name in names]
