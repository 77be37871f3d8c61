"""Views that answer whose register they have read, by every path between asynchronous and synchronous code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from django_pglb import current_decisions

from .models import Register

# Enough for other requests to come in between.
BETWEEN_CHUNKS_SECONDS = 0.01


def as_dict(register: Register) -> dict[str, Any]:
    return {"user": register.user.username, "value": register.value}


async def who(request: HttpRequest) -> str:
    """Return the name of the user that a request is from: a program names it, a browser has a session."""
    token = request.headers.get("Authorization")
    return token.removeprefix("Token ") if token else (await request.auser()).get_username()


def of(name: str) -> Any:
    return Register.objects.select_related("user").get(user__username=name)


@transaction.atomic
def raise_register(name: str) -> Register:
    Register.objects.filter(user__username=name).update(value=F("value") + 1)
    register: Register = of(name)
    return register


async def a_register(request: HttpRequest) -> HttpResponse:
    """An asynchronous view; POST raises the number in a transaction, in a thread."""
    name = await who(request)
    if request.method == "POST":
        register = await sync_to_async(raise_register)(name)
    else:
        register = await Register.objects.select_related("user").aget(user__username=name)
    return JsonResponse(as_dict(register))


async def gathered(request: HttpRequest) -> HttpResponse:
    """Several reads at once, in one request: they must be of one user, and none may be older than the user's writes."""
    name = await who(request)
    first, second, rows = await asyncio.gather(
        Register.objects.select_related("user").aget(user__username=name),
        sync_to_async(of, thread_sensitive=False)(name),
        a_list(name),
    )
    registers = [first, second, *rows]
    users = {register.user.username for register in registers}
    return JsonResponse({"user": " and ".join(sorted(users)), "value": min(register.value for register in registers)})


async def a_list(name: str) -> list[Register]:
    return [register async for register in Register.objects.select_related("user").filter(user__username=name)]


def async_in_sync(request: HttpRequest) -> HttpResponse:
    """A synchronous view that runs asynchronous code, which runs synchronous code."""

    async def inner() -> Register:
        register: Register = await sync_to_async(of)(await who(request))
        return register

    return JsonResponse(as_dict(async_to_sync(inner)()))


async def sync_in_async(request: HttpRequest) -> HttpResponse:
    """The other way round."""
    name = await who(request)

    def inner() -> Register:
        register: Register = async_to_sync(Register.objects.select_related("user").aget)(user__username=name)
        return register

    return JsonResponse(as_dict(await sync_to_async(inner)()))


async def streamed(request: HttpRequest) -> HttpResponse:
    """Answer line by line; a POST raises the number in between."""
    name = await who(request)
    writes = "write" in request.GET

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            register = await sync_to_async(raise_register if writes and number == 1 else of)(name)
            served = [[alias, reason] for alias, reason, _ in current_decisions()]
            yield json.dumps({**as_dict(register), "served": served}) + "\n"
            await asyncio.sleep(BETWEEN_CHUNKS_SECONDS)

    return StreamingHttpResponse(lines(), content_type="text/plain")


# --- A task that goes on after the response ---

_tasks: set[asyncio.Task[None]] = set()
_done: dict[str, int] = {}


async def raise_later(request: HttpRequest) -> HttpResponse:
    """Start a task that raises the number, and answer before it has."""
    name = await who(request)
    task = asyncio.create_task(_raise_later(name))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return JsonResponse({"user": name, "value": 0})


async def _raise_later(name: str) -> None:
    await asyncio.sleep(BETWEEN_CHUNKS_SECONDS)

    def work() -> int:
        try:
            value: int = raise_register(name).value
        finally:
            # Nobody else would: the request has ended.
            connections.close_all()
        return value

    value = await sync_to_async(work)()
    _done[name] = max(value, _done.get(name, 0))


async def raised_later(request: HttpRequest) -> HttpResponse:
    """Answer the number that the user's latest task that is done here has written."""
    name = await who(request)
    return JsonResponse({"user": name, "value": _done.get(name, 0)})
