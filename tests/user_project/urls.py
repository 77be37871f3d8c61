"""Two pages: one writes, one reads."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from .notes.models import Note


def write(request: HttpRequest) -> HttpResponse:
    Note.objects.create(text=request.POST["text"])
    return HttpResponse()


def read(request: HttpRequest) -> HttpResponse:
    user = request.user if request.user.is_authenticated else None
    return HttpResponse(f"{user} {', '.join(Note.objects.values_list('text', flat=True))}")


urlpatterns = [path("write/", write), path("read/", read)]
