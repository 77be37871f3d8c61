"""django-import-export: rows come in by a file and go out as one, in the admin."""

from __future__ import annotations

import re
from typing import Any

PACKAGE = "django-import-export"
APPS = ["import_export"]


def models() -> None:
    from django.contrib import admin
    from django.db import models
    from import_export.admin import ImportExportModelAdmin

    class Article(models.Model):
        title = models.CharField(max_length=50)

        class Meta:
            app_label = "place"

        def __str__(self) -> str:
            return self.title

    admin.site.register(Article, ImportExportModelAdmin)


def _import(visit: Any, text: str) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    upload = SimpleUploadedFile("articles.csv", text.encode())
    page = visit.post("/admin/place/article/import/", {"format": "0", "import_file": upload, "resource": "0"})
    fields = dict(re.findall(r'name="(import_file_name|original_file_name|format|resource)" value="([^"]*)"', page))
    assert "import_file_name" in fields, "there is nothing to confirm"
    visit.post("/admin/place/article/process_import/", fields)


def comes_in(visit: Any) -> None:
    visit.sign_in()
    visit.sees("/admin/place/article/", "0 articles")
    _import(visit, "id,title\n1,One\n2,Two\n")
    visit.sees("/admin/place/article/", "One", "Two", "2 articles")


def comes_in_again(visit: Any) -> None:
    _import(visit, "id,title\n1,Uno\n3,Three\n")
    visit.sees("/admin/place/article/", "Uno", "Two", "Three", "3 articles", without=("One<",))


def goes_out(visit: Any) -> None:
    columns = {"articleresource_id": "on", "articleresource_title": "on"}
    text = visit.post("/admin/place/article/export/", {"format": "0", "resource": "0", **columns})
    assert "Uno" in text, "what came in does not go out"


STEPS = [comes_in, comes_in_again, goes_out]
