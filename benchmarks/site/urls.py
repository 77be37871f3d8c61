"""One path per view."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.page, name="page"),
    path("small/", views.small, name="small"),
    path("stranger/", views.stranger, name="stranger"),
    path("write/", views.write, name="write"),
    path("topology/", views.topology, name="topology"),
]
