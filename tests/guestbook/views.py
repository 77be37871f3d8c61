"""Small views that answer in JSON: what they read, and which host served it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse

from django_pglb import current_decisions, ignore_writes, replica_reads, routing_session, use_replicas

from .models import Entry


def newest(request: HttpRequest) -> JsonResponse:
    entry = Entry.objects.order_by("-pk").first()
    return JsonResponse({"text": entry and entry.text})


def write(request: HttpRequest) -> JsonResponse:
    entry = Entry.objects.create(text=request.POST.get("text") or request.GET.get("text", ""))
    return JsonResponse({"pk": entry.pk})


def write_then_read(request: HttpRequest) -> JsonResponse:
    Entry.objects.create(text="x")
    return JsonResponse({"count": Entry.objects.count()})


async def write_async(request: HttpRequest) -> JsonResponse:
    entry = await Entry.objects.acreate(text=request.POST["text"])
    return JsonResponse({"pk": entry.pk})


def write_raw(request: HttpRequest) -> JsonResponse:
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH new AS (INSERT INTO guestbook_entry (text, created) VALUES (%s, now()) RETURNING id) SELECT id FROM new",
            [request.GET["text"]],
        )
        return JsonResponse({"pk": cursor.fetchone()[0]})


def write_on_commit(request: HttpRequest) -> JsonResponse:
    with transaction.atomic():
        transaction.on_commit(lambda: Entry.objects.create(text=request.GET["text"]))
    return JsonResponse({})


def write_and_fail(request: HttpRequest) -> JsonResponse:
    Entry.objects.create(text=request.GET["text"])
    raise RuntimeError("after the write")


def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username()})


@use_replicas()
def whoami_stale(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username(), "count": Entry.objects.count()})


def nothing(request: HttpRequest) -> JsonResponse:
    return JsonResponse({})


def sign_in(request: HttpRequest) -> JsonResponse:
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    login(request, user)
    return JsonResponse({"user": user.get_username()})


def sign_out(request: HttpRequest) -> JsonResponse:
    logout(request)
    return JsonResponse({})


def change_password(request: HttpRequest) -> JsonResponse:
    request.user.set_password("new")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return JsonResponse({})


@replica_reads()
def search(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"count": Entry.objects.count()})


# --- Streams: each step of `?steps=` is a chunk, which says what was read, from where and why ---


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks(request.GET["steps"].split(","), request.GET.get("at_end")))


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(async_chunks(request.GET["steps"].split(","), request.GET.get("at_end")))


def chunks(steps: list[str], at_end: str | None) -> Iterator[str]:
    try:
        for step in steps:
            if step == "stale":
                with use_replicas():
                    yield chunk("read")
                    yield chunk("read")
            elif step == "inner":
                with routing_session(identity=("authorization", "Token inner")):
                    yield chunk("write")
            elif step == "transaction":
                with transaction.atomic():
                    yield chunk("read")
            else:
                yield chunk(step)
    finally:
        if at_end:
            Entry.objects.create(text=at_end)


async def async_chunks(steps: list[str], at_end: str | None) -> AsyncIterator[str]:
    try:
        for step in steps:
            if step == "stale":
                with use_replicas():
                    yield await sync_to_async(chunk)("read")
                    yield await sync_to_async(chunk)("read")
            elif step == "inner":
                async with routing_session(identity=("authorization", "Token inner")):
                    yield await sync_to_async(chunk)("write")
            elif step == "hang":
                await asyncio.Event().wait()
            else:
                yield await sync_to_async(chunk)(step)
    finally:
        if at_end:
            await Entry.objects.acreate(text=at_end)


def chunk(step: str) -> str:
    """Do one step; answer the newest text, and where the statements ran and why."""
    if step == "fail":
        raise RuntimeError("in the middle")
    before = set(current_decisions())
    if step == "write":
        Entry.objects.create(text="streamed")
    newest = Entry.objects.order_by("-pk").first()
    served = [(alias, reason) for alias, reason, _ in set(current_decisions()) - before]
    return json.dumps({"text": newest and newest.text, "served": served})


# --- Work that goes on after the response ---

may_write: dict[asyncio.Task[None], asyncio.Event] = {}


async def write_later(request: HttpRequest) -> JsonResponse:
    """Start a task that writes when it may, in the way that `?how=` says."""
    event = asyncio.Event()
    may_write[asyncio.create_task(_write_later(request.GET["how"], event))] = event
    return JsonResponse({})


async def _write_later(how: str, event: asyncio.Event) -> None:
    await event.wait()
    match how:
        case "statement":
            await Entry.objects.acreate(text="later")
        case "transaction":
            await sync_to_async(_write_in_transaction)()
        case "inner":
            async with routing_session(identity=("authorization", "Token inner")):
                await Entry.objects.acreate(text="later")
        case "ignored":
            async with ignore_writes():
                await Entry.objects.acreate(text="later")


def _write_in_transaction() -> None:
    with transaction.atomic():
        Entry.objects.create(text="rolled back")
        transaction.set_rollback(True)
    with transaction.atomic():
        Entry.objects.create(text="later")
