"""Small views that answer in JSON: what they read, and which host served it."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse

from django_pglb import ignore_writes, replica_reads, routing_session, use_replicas

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
