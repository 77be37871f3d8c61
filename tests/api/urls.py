"""The API beside the guestbook's own pages."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.routers import SimpleRouter

from ..guestbook.urls import urlpatterns as pages
from . import views

router = SimpleRouter()
router.register("token/entries", views.TokenEntries, basename="token")
router.register("stale/entries", views.StaleEntries, basename="stale")
router.register("session/entries", views.SessionEntries, basename="session")
router.register("bearer/entries", views.BearerEntries, basename="bearer")

urlpatterns = [
    *pages,
    path("api/", include(router.urls)),
    path("api/token/", obtain_auth_token),
    path("api/register/", views.register),
    path("api/new_token/", views.new_token_in_a_unit),
    path("api/on_behalf/", views.on_behalf),
]
