"""One path per page or button."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.guestbook, name="guestbook"),
    path("people/<str:username>/", views.person, name="person"),
    path("sign/", views.sign, name="sign"),
    path("sign-in/", views.sign_in, name="sign_in"),
    path("sign-out/", views.sign_out, name="sign_out"),
    path("hosts/", views.hosts, name="hosts"),
    path("hosts/<str:alias>/<str:action>/", views.control_host, name="control_host"),
]
