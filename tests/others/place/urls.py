"""The admin, and the URLs of the journey that this process is on."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from ..settings import journey

urlpatterns = [*(journey.urls() if hasattr(journey, "urls") else ()), path("admin/", admin.site.urls)]
