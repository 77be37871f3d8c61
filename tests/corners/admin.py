"""The admin of two models."""

from __future__ import annotations

from django.contrib import admin

from .models import Publication, Reader

admin.site.register(Reader, fields=["name"])
admin.site.register(Publication, fields=["title", "editor"])
