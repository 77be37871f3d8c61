"""One path per view, named after it."""

from __future__ import annotations

from django.urls import path

from . import views

NAMES = ("register", "sign_in", "whoami", "topology")

urlpatterns = [path(f"{name}/", getattr(views, name), name=name) for name in NAMES]
