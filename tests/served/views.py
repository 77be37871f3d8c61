"""The views of the served site."""

from __future__ import annotations

import time

from django.apps import apps
from django.contrib.auth import authenticate, login
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse

from django_pglb import runtime

from .models import Register

# Long enough for as many requests as there are workers to be under way at once, so that each worker gets one.
HOLD_SECONDS = 0.05


def register(request: HttpRequest) -> HttpResponse:
    """Answer the user's number; POST raises it first. 401 for whoever is not signed in."""
    if not request.user.is_authenticated:
        return JsonResponse({}, status=401)
    if request.method == "POST":
        with transaction.atomic():
            own = Register.objects.select_for_update().get(user_id=request.user.pk)
            own.value += 1
            own.save(update_fields=["value"])
    else:
        own = Register.objects.get(user_id=request.user.pk)
    return JsonResponse({"value": own.value})


def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in and redirect, as login pages do."""
    login(request, authenticate(request, username=request.POST["username"], password=request.POST["password"]))
    return HttpResponseRedirect("/whoami/")


def whoami(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"user": request.user.get_username()})


def topology(request: HttpRequest) -> HttpResponse:
    """Answer how this process sees each host, after holding the worker for a moment. Nothing without our package."""
    time.sleep(HOLD_SECONDS)
    if not apps.is_installed("django_pglb"):
        return JsonResponse({})
    hosts = runtime.get_runtime().topology("default").by_alias
    return JsonResponse({alias: host.state for alias, host in hosts.items()})
