"""django-reversion: versions are made in the admin, looked at, and gone back to."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-reversion"
APPS = ["reversion"]


def models() -> None:
    from django.contrib import admin
    from django.db import models
    from reversion.admin import VersionAdmin

    class Article(models.Model):
        title = models.CharField(max_length=50)

        class Meta:
            app_label = "place"

        def __str__(self) -> str:
            return self.title

    admin.site.register(Article, VersionAdmin)


def _pk() -> int:
    from django.apps import apps

    return int(apps.get_model("place", "Article").objects.get().pk)


def versions(visit: Any) -> None:
    visit.sign_in()
    visit.sees("/admin/place/article/", "0 articles")
    visit.post("/admin/place/article/add/", {"title": "First title"})
    visit.sees("/admin/place/article/", "First title")
    visit.post(f"/admin/place/article/{_pk()}/change/", {"title": "Second title"})
    visit.sees("/admin/place/article/", "Second title")
    visit.sees(f"/admin/place/article/{_pk()}/history/", "Added", "Changed")


def goes_back(visit: Any) -> None:
    from reversion.models import Version

    oldest = Version.objects.order_by("pk").first()
    visit.sees(f"/admin/place/article/{_pk()}/history/{oldest.pk}/", "First title")
    visit.post(f"/admin/place/article/{_pk()}/history/{oldest.pk}/", {"title": "First title"})
    visit.sees("/admin/place/article/", "First title", without=("Second title",))


def recovers(visit: Any) -> None:
    visit.post(f"/admin/place/article/{_pk()}/delete/", {"post": "yes"})
    visit.sees("/admin/place/article/", "0 articles")
    visit.sees("/admin/place/article/recover/", "First title")


STEPS = [versions, goes_back, recovers]
