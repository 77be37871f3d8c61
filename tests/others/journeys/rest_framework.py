"""Django REST framework: a view set with tokens, filters (django-filter) and a throttle."""

from __future__ import annotations

from typing import Any

from .cachalot import models

PACKAGE = "djangorestframework"
APPS = ["rest_framework", "rest_framework.authtoken", "django_filters"]
SETTINGS = {
    "REST_FRAMEWORK": {
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
        "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"user": "25/min"},
    }
}
__all__ = ["models"]


def urls() -> list[Any]:
    from django.apps import apps
    from django.urls import include, path
    from rest_framework import permissions, routers, serializers, viewsets
    from rest_framework.authtoken.views import obtain_auth_token

    article = apps.get_model("place", "Article")

    class ArticleSerializer(serializers.ModelSerializer):  # type: ignore[type-arg]
        class Meta:
            model = article
            fields = ("id", "title")

    class Articles(viewsets.ModelViewSet):  # type: ignore[type-arg]
        queryset = article.objects.order_by("pk")
        serializer_class = ArticleSerializer
        permission_classes = (permissions.IsAuthenticated,)
        filterset_fields = ("title",)

    router = routers.DefaultRouter()
    router.register("articles", Articles)
    return [path("token/", obtain_auth_token), path("api/", include(router.urls))]


def token(visit: Any) -> None:
    key = visit.client.post("/token/", {"username": "ann", "password": "secret"}).json()["token"]
    visit.client.defaults["HTTP_AUTHORIZATION"] = f"Token {key}"
    visit.sees("/api/articles/?format=json", "[]")


def create_change_delete(visit: Any) -> None:
    for title in ("one", "two"):
        visit.post("/api/articles/", {"title": title}, status=201)
        visit.sees("/api/articles/?format=json", title)
    pk = visit.client.get("/api/articles/?title=two").json()[0]["id"]
    changed = visit.client.patch(f"/api/articles/{pk}/", {"title": "three"}, content_type="application/json")
    assert changed.status_code == 200
    visit.sees(f"/api/articles/{pk}/?format=json", "three")
    visit.sees("/api/articles/?title=three&format=json", "three", without=("one",))
    first = visit.client.get("/api/articles/?title=one").json()[0]["id"]
    assert visit.client.delete(f"/api/articles/{first}/").status_code == 204
    visit.get(f"/api/articles/{first}/", status=404)
    visit.sees("/api/articles/?format=json", "three", without=("one",))


def throttle(visit: Any) -> None:
    statuses = [visit.client.get("/api/articles/").status_code for _ in range(25)]
    assert statuses[-1] == 429, "nobody is limited"


STEPS = [token, create_change_delete, throttle]
