"""django-debug-toolbar: its SQL panel wraps cursors, also those of replicas."""

from __future__ import annotations

import re
from typing import Any

from .cachalot import models, urls

PACKAGE = "django-debug-toolbar"
APPS = ["debug_toolbar"]
MIDDLEWARE_ABOVE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
SETTINGS = {"DEBUG": True, "DEBUG_TOOLBAR_CONFIG": {"SHOW_TOOLBAR_CALLBACK": "tests.others.journeys.debug_toolbar.always"}}

__all__ = ["models"]
_pages = urls


def always(request: Any) -> bool:
    return True


def urls() -> list[Any]:  # type: ignore[no-redef]
    from django.urls import include, path

    return [*_pages(), path("__debug__/", include("debug_toolbar.urls"))]


def panels(visit: Any) -> None:
    page = visit.get("/admin/login/")
    found = re.search(r'data-request-id="(\w+)"|data-store-id="(\w+)"', page)
    assert found is not None, "the toolbar is not there"
    visit.sign_in()
    page = visit.get("/admin/auth/user/")
    found = re.search(r'data-request-id="(\w+)"', page)
    assert found is not None
    panel = visit.get(f"/__debug__/render_panel/?request_id={found[1]}&panel_id=SQLPanel")
    assert "auth_user" in panel, "the panel lacks the page's queries"


def on_replicas(visit: Any) -> None:
    visit.sees("/admin/auth/user/", "ann", "djDebug")


STEPS = [panels, on_replicas]
