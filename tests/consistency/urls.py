"""The pages, and those of the served site that signing in and watching a worker need."""

from __future__ import annotations

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.served.views import sign_in, topology, whoami

from .views import read, write

urlpatterns = [
    path("write/<str:kind>/", csrf_exempt(write)),
    path("read/<str:kind>/", read),
    path("sign_in/", csrf_exempt(sign_in)),
    path("whoami/", whoami),
    path("topology/", topology),
]
