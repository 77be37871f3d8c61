"""django-axes: who guesses passwords is locked out, and let in again."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-axes"
APPS = ["axes"]
MIDDLEWARE = ["axes.middleware.AxesMiddleware"]
SETTINGS = {
    "AUTHENTICATION_BACKENDS": ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"],
    "AXES_FAILURE_LIMIT": 3,
    "AXES_VERBOSE": False,
    "LOGGING": {"version": 1, "loggers": {"axes": {"level": "ERROR"}}},
}


def is_locked_out(visit: Any) -> None:
    statuses = [visit.client.post("/admin/login/", {"username": "ann", "password": "wrong"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429], statuses
    visit.post("/admin/login/", {"username": "ann", "password": "secret"}, status=429)


def is_let_in_again(visit: Any) -> None:
    from axes.utils import reset

    reset(username="ann")
    visit.sign_in()
    visit.sees("/admin/axes/accesslog/", "ann")


STEPS = [is_locked_out, is_let_in_again]
