"""django-simple-history: each save leaves a row, which the admin shows and goes back to."""

from __future__ import annotations

from typing import Any

PACKAGE = "django-simple-history"
APPS = ["simple_history"]
MIDDLEWARE = ["simple_history.middleware.HistoryRequestMiddleware"]


def models() -> None:
    from django.contrib import admin
    from django.db import models
    from simple_history.admin import SimpleHistoryAdmin
    from simple_history.models import HistoricalRecords

    class Article(models.Model):
        title = models.CharField(max_length=50)
        history = HistoricalRecords(app="place")

        class Meta:
            app_label = "place"

        def __str__(self) -> str:
            return self.title

    admin.site.register(Article, SimpleHistoryAdmin)


def history(visit: Any) -> None:
    visit.sign_in()
    visit.post("/admin/place/article/add/", {"title": "First title"})
    visit.post("/admin/place/article/1/change/", {"title": "Second title"})
    visit.sees("/admin/place/article/", "Second title")
    visit.sees("/admin/place/article/1/history/", "First title", "Second title", "ann")


def goes_back(visit: Any) -> None:
    from django.apps import apps

    oldest = apps.get_model("place", "HistoricalArticle").objects.order_by("pk").first()
    visit.sees(f"/admin/place/article/1/history/{oldest.pk}/", "First title")
    visit.post(f"/admin/place/article/1/history/{oldest.pk}/", {"title": "First title", "_save": "1"})
    visit.sees("/admin/place/article/", "First title", without=("Second title",))


STEPS = [history, goes_back]
