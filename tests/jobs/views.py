"""Views that write, and start tasks."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from tests.guestbook.models import Entry

from .app import app


def start(request: HttpRequest, task: str, queue: str) -> Any:
    return app.tasks[f"tests.jobs.tasks.{task}"].apply_async((request.POST["text"],), queue=queue)


def order(request: HttpRequest) -> JsonResponse:
    """Write, and start the tasks that `task` names, each on the queue that `queue` names."""
    Entry.objects.create(text=request.POST["text"])
    return JsonResponse({"ids": [start(request, task, request.POST["queue"]).id for task in request.POST.getlist("task")]})


def start_only(request: HttpRequest) -> JsonResponse:
    """Start a task for what an earlier request wrote. A GET, which itself has written nothing."""
    result = app.tasks[f"tests.jobs.tasks.{request.GET['task']}"].apply_async((request.GET["text"],), queue=request.GET["queue"])
    return JsonResponse({"ids": [result.id]})


def order_on_commit(request: HttpRequest) -> JsonResponse:
    """Write in a transaction, and start the task when it has committed."""
    ids = []
    with transaction.atomic():
        Entry.objects.create(text=request.POST["text"])
        transaction.on_commit(lambda: ids.append(start(request, request.POST["task"], request.POST["queue"]).id))
    return JsonResponse({"ids": ids})


def order_in_transaction(request: HttpRequest) -> JsonResponse:
    """Start the task before the commit, as one should not."""
    with transaction.atomic():
        Entry.objects.create(text=request.POST["text"])
        ids = [start(request, request.POST["task"], request.POST["queue"]).id]
    return JsonResponse({"ids": ids})


async def order_async(request: HttpRequest) -> JsonResponse:
    """Write, and start the task in the event loop, as one should not."""
    await Entry.objects.acreate(text=request.POST["text"])
    return JsonResponse({"ids": [start(request, request.POST["task"], request.POST["queue"]).id]})


def order_eagerly(request: HttpRequest) -> JsonResponse:
    """Write, run a task in this very request, and read again."""
    Entry.objects.create(text=request.POST["text"])
    result = app.tasks[f"tests.jobs.tasks.{request.POST['task']}"].apply((request.POST["text"],))
    return JsonResponse({"answer": result.get(), "count": Entry.objects.count()})
