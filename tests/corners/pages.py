"""Pages that several tests ask for."""

from __future__ import annotations

from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse

from .models import Publication


def titles(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"titles": list(Publication.objects.order_by("pk").values_list("title", flat=True))})


def publish(request: HttpRequest) -> JsonResponse:
    Publication.objects.create(title=request.POST.get("title", "News"))
    return JsonResponse({})


def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username()})


def sign_in(request: HttpRequest) -> JsonResponse:
    login(request, authenticate(request, username="ann", password=request.POST.get("password", "secret")))
    return JsonResponse({})


def sign_out(request: HttpRequest) -> JsonResponse:
    logout(request)
    return JsonResponse({})


def sign_up(request: HttpRequest) -> JsonResponse:
    login(request, User.objects.create_user("bob", password="secret"), backend="django.contrib.auth.backends.ModelBackend")
    return JsonResponse({})


def change_password(request: HttpRequest) -> JsonResponse:
    request.user.set_password("new")  # type: ignore[union-attr]
    request.user.save()
    update_session_auth_hash(request, request.user)  # type: ignore[arg-type]
    return JsonResponse({})
