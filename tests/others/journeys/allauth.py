"""django-allauth: somebody signs up, confirms an address by a link, and resets a password."""

from __future__ import annotations

import re
from typing import Any

PACKAGE = "django-allauth"
APPS = ["django.contrib.sites", "allauth", "allauth.account"]
MIDDLEWARE = ["allauth.account.middleware.AccountMiddleware"]
SETTINGS = {
    "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend", "allauth.account.auth_backends.AuthenticationBackend"],
    "ACCOUNT_EMAIL_VERIFICATION": "mandatory",
    "ACCOUNT_SIGNUP_FIELDS": ["email*", "username*", "password1*", "password2*"],
    "ACCOUNT_LOGIN_METHODS": {"username"},
    "LOGIN_REDIRECT_URL": "/accounts/email/",
    "ACCOUNT_LOGOUT_REDIRECT_URL": "/accounts/login/",
    "ACCOUNT_RATE_LIMITS": False,
}
PASSWORD = "a long enough word"


def urls() -> list[Any]:
    from django.urls import include, path

    return [path("accounts/", include("allauth.urls"))]


def _link() -> str:
    from django.core import mail

    found = re.findall(r"http://[^/\s]+(/\S+)", str(mail.outbox[-1].body))
    return str(found[0])


def signs_up(visit: Any) -> None:
    form = {"username": "bob", "email": "bob@example.com", "password1": PASSWORD, "password2": PASSWORD}
    visit.post("/accounts/signup/", form)
    page = visit.get(_link())
    assert "confirm" in page.lower()
    visit.post(_link())
    visit.post("/accounts/login/", {"login": "bob", "password": PASSWORD})
    visit.sees("/accounts/email/", "bob@example.com", "Verified", without=("Unverified",))


def adds_an_address(visit: Any) -> None:
    visit.post("/accounts/email/", {"action_add": "", "email": "bob@work.example.com"})
    visit.sees("/accounts/email/", "bob@work.example.com", "Unverified")


def resets_the_password(visit: Any) -> None:
    visit.post("/accounts/logout/")
    visit.post("/accounts/password/reset/", {"email": "bob@example.com"})
    page = visit.client.get(_link(), follow=True)
    visit.post(page.request["PATH_INFO"], {"password1": f"{PASSWORD}er", "password2": f"{PASSWORD}er"})
    visit.post("/accounts/login/", {"login": "bob", "password": f"{PASSWORD}er"})
    visit.sees("/accounts/email/", "bob@example.com")


STEPS = [signs_up, adds_an_address, resets_the_password]
