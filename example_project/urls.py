"""The guestbook is the whole site."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("example_project.guestbook.urls"))]
