"""Only the admin: the other pages of the tests stand beside what they show."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
