"""Wagtail: a page is written, published, looked at, changed and taken back, in its own admin."""

from __future__ import annotations

from typing import Any

PACKAGE = "wagtail"
APPS = [
    "wagtail.contrib.redirects",
    "wagtail.sites",
    "wagtail.users",
    "wagtail.documents",
    "wagtail.images",
    "wagtail.search",
    "wagtail.admin",
    "wagtail",
    "modelcluster",
    "taggit",
]
MIDDLEWARE = ["wagtail.contrib.redirects.middleware.RedirectMiddleware"]
SETTINGS = {"WAGTAIL_SITE_NAME": "others", "WAGTAILADMIN_BASE_URL": "http://testserver"}


def models() -> None:
    from django.db import models
    from django.http import HttpResponse
    from wagtail.admin.panels import FieldPanel
    from wagtail.models import Page

    class Story(Page):  # type: ignore[misc]
        body = models.TextField(blank=True)
        content_panels = (*Page.content_panels, FieldPanel("body"))

        class Meta:
            app_label = "place"

        def serve(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
            return HttpResponse(f"{self.title}: {self.body}, under {self.get_parent().title}")


def urls() -> list[Any]:
    from django.urls import include, path
    from wagtail import urls as pages
    from wagtail.admin import urls as wagtail_admin

    return [path("cms/", include(wagtail_admin)), path("site/", include(pages))]


def _home() -> int:
    from wagtail.models import Site

    return int(Site.objects.get().root_page_id)


def _story() -> int:
    from django.apps import apps

    return int(apps.get_model("place", "Story").objects.get().pk)


FORM = {"title": "News", "slug": "news", "body": "old", "comments-TOTAL_FORMS": 0, "comments-INITIAL_FORMS": 0}


def is_published(visit: Any) -> None:
    visit.sign_in()
    visit.get(f"/cms/pages/{_home()}/")
    visit.post(f"/cms/pages/add/place/story/{_home()}/", {**FORM, "action-publish": "action-publish"})
    visit.sees("/site/news/", "News: old")
    visit.sees(f"/cms/pages/{_home()}/", "News")


def is_drafted_and_published_again(visit: Any) -> None:
    edit = f"/cms/pages/{_story()}/edit/"
    visit.post(edit, {**FORM, "body": "new"})
    visit.sees("/site/news/", "News: old")
    visit.sees(edit, "new")
    visit.post(edit, {**FORM, "body": "newest", "action-publish": "action-publish"})
    visit.sees("/site/news/", "News: newest")


def is_found(visit: Any) -> None:
    visit.sees("/cms/pages/search/?q=News", "News")


def is_taken_back(visit: Any) -> None:
    visit.post(f"/cms/pages/{_story()}/unpublish/")
    visit.get("/site/news/", status=404)
    visit.sees(f"/cms/pages/{_home()}/", "News")


STEPS = [is_published, is_drafted_and_published_again, is_found, is_taken_back]
