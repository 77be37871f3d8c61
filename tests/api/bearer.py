"""Signed bearer tokens, as JSON Web Tokens are: who has one is known without a query, and one user has many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from django_pglb import identity

SALT = "tests.api.bearer"


def new_token(user: Any, number: int = 1) -> str:
    """Return a token of `user`; each number gives another one."""
    return signing.dumps({"sub": str(user.pk), "number": number}, salt=SALT)


def subject(request: Any) -> str | None:
    """Return the id of the user whose token a request bears; None if it bears none of ours."""
    keyword, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
    if keyword != "Bearer":
        return None
    try:
        return str(signing.loads(token, salt=SALT)["sub"])
    except signing.BadSignature:
        return None


class BearerAuthentication(BaseAuthentication):
    """Loads the user inside the view, as the packages for JSON Web Tokens do."""

    def authenticate(self, request: Any) -> tuple[User, None] | None:
        user_id = subject(request)
        if user_id is None:
            return None
        user = User.objects.filter(pk=user_id).first()
        if user is None:
            raise AuthenticationFailed("no such user")
        return user, None

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


def from_request(request: HttpRequest) -> Iterator[tuple[str, str]]:
    """What the documentation shows for IDENTITY: the token itself says whose it is."""
    yield from identity.from_request(request)
    user_id = subject(request)
    if user_id is not None:
        yield "user", user_id
