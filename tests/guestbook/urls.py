"""One path per view, named after it."""

from __future__ import annotations

from django.urls import path

from . import views

NAMES = (
    "newest",
    "write",
    "write_then_read",
    "write_async",
    "write_raw",
    "write_on_commit",
    "write_and_fail",
    "whoami",
    "whoami_stale",
    "nothing",
    "sign_in",
    "sign_out",
    "change_password",
    "search",
    "stream",
    "stream_async",
    "write_later",
)

urlpatterns = [path(f"{name}/", getattr(views, name), name=name) for name in NAMES]
