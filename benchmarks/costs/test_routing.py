"""One routing decision, inside a request as the contender's middleware opens it, with all decided that a request decides once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import router
from django.db.utils import ConnectionRouter
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from .conftest import Case
from .contenders import REPLICAS
from .environment import contender
from .tables import BY_DJANGO, DIRECT, ROUTING


@pytest.mark.parametrize("path", contender().routers)
def test_router(path: str, fill: Case) -> None:
    asked = router.routers[0] if _is_installed(path) else import_string(path)()
    _measure(fill, path, DIRECT, asked)


@pytest.mark.parametrize("path", contender().routers)
def test_django_router(path: str, fill: Case) -> None:
    # Ours asks the project's other routers, so it must be in the project's list.
    asked = router if _is_installed(path) else ConnectionRouter([path])
    _measure(fill, path, BY_DJANGO, asked)


def _is_installed(path: str) -> bool:
    return path == contender().routers[0]


def _measure(fill: Case, path: str, column: str, asked: Any) -> None:
    def view() -> None:
        assert asked.db_for_read(User) in REPLICAS
        fill(ROUTING, path, column, lambda: asked.db_for_read(User))

    _in_request(view)


def _in_request(view: Callable[[], None]) -> None:
    def get_response(request: HttpRequest) -> HttpResponse:
        view()
        return HttpResponse()

    (path,) = contender().middleware
    request = HttpRequest()
    request.method = "GET"
    import_string(path)(get_response)(request)
