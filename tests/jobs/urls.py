"""One path per view, named after it."""

from __future__ import annotations

from django.urls import path

from tests.guestbook.urls import urlpatterns as of_guestbook

from . import views

NAMES = ("order", "start_only", "order_on_commit", "order_in_transaction", "order_async", "order_eagerly")

urlpatterns = [*of_guestbook, *(path(f"{name}/", getattr(views, name), name=name) for name in NAMES)]
