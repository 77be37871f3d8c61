"""The site whose messages are counted: an anonymous page, a signed-in page of three queries, and a form."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path


def newest(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"newest": list(Group.objects.order_by("-pk").values_list("name", flat=True)[:1])})


def mine(request: HttpRequest) -> HttpResponse:
    name = request.user.first_name
    return JsonResponse({"name": name, "groups": list(Group.objects.values_list("name", flat=True)[:5])})


def rename(request: HttpRequest) -> HttpResponse:
    User.objects.filter(pk=request.user.pk).update(first_name=request.POST["name"])
    return HttpResponseRedirect("/mine/")


urlpatterns = [path("newest/", newest), path("mine/", mine), path("rename/", rename)]
