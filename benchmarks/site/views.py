"""The site's pages. Who is signed in is known by a session in the database, as Django sets it up."""

from __future__ import annotations

import os
import time
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models import F, Func, IntegerField
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from .models import Post, Register

POSTS_SHOWN = 20
# What the responses say of themselves: the reader's register, and the port of the server that the register was read from.
VALUE, SERVER, WORKER = "X-Value", "X-Server", "X-Worker"
# Long enough for as many requests as there are workers to be under way at once, so that each worker gets one.
HOLD_SECONDS = 0.05


class ServerPort(Func):
    """The port of the server that answers: the server's own word for who it is."""

    function = "inet_server_port"
    output_field = IntegerField()


def page(request: HttpRequest) -> HttpResponse:
    """A page of six queries: session, user, register, groups, unread messages and the latest posts with their authors."""
    user: Any = request.user
    register = read_register(user.pk)
    shown = {
        "register": register,
        "groups": list(user.groups.order_by("name")),
        "unread": user.messages_received.filter(is_read=False).count(),
        "posts": latest_posts(),
    }
    return told(render(request, "site/page.html", shown), register)


def small(request: HttpRequest) -> HttpResponse:
    """The smallest page for somebody who is signed in: session, user, register."""
    register = read_register(request.user.pk)
    return told(JsonResponse({"value": register.value}), register)


def stranger(request: HttpRequest) -> HttpResponse:
    """A page for anybody: one query, and no look at the session."""
    return JsonResponse({"posts": [post.text for post in latest_posts()]})


@transaction.atomic
def write(request: HttpRequest) -> HttpResponse:
    """Raise the user's register, and write a post."""
    Register.objects.filter(user_id=request.user.pk).update(value=F("value") + 1)
    Post.objects.create(author_id=request.user.pk, text="Something new, about as long as what people write.")
    register = read_register(request.user.pk)
    return told(JsonResponse({"value": register.value}), register)


def topology(request: HttpRequest) -> HttpResponse:
    """Answer how this process sees each host, after holding the worker for a moment. Nothing without our package."""
    time.sleep(HOLD_SECONDS)
    states = {}
    if apps.is_installed("django_pglb"):
        from django_pglb.runtime import get_runtime

        states = {alias: host.state for alias, host in get_runtime().topology("default").by_alias.items()}
    response = JsonResponse(states)
    response[WORKER] = str(os.getpid())
    return response


def read_register(user_id: int) -> Any:
    """Return the register of a user, with the `server` that it was read from."""
    return Register.objects.annotate(server=ServerPort()).get(user_id=user_id)


def latest_posts() -> list[Post]:
    return list(Post.objects.select_related("author").order_by("-pk")[:POSTS_SHOWN])


def told(response: HttpResponse, register: Any) -> HttpResponse:
    response[VALUE], response[SERVER] = str(register.value), str(register.server)
    return response
