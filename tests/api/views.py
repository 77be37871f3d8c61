"""The guestbook's entries, read and written with a token of the database, a session, or a signed bearer token."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.utils.decorators import method_decorator
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.decorators import api_view, authentication_classes, renderer_classes
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ModelViewSet

from django_pglb import routing_session, stick, use_replicas

from ..guestbook.models import Entry
from .bearer import BearerAuthentication, new_token


class EntrySerializer(ModelSerializer):
    class Meta:
        model = Entry
        fields = ("pk", "text")


class Pages(PageNumberPagination):
    page_size = 2


class Entries(ModelViewSet):
    queryset = Entry.objects.order_by("-pk")
    serializer_class = EntrySerializer
    pagination_class = Pages
    permission_classes = (IsAuthenticated,)
    renderer_classes = (JSONRenderer,)


class TokenEntries(Entries):
    authentication_classes = (TokenAuthentication,)


@method_decorator(use_replicas(), name="dispatch")
class StaleEntries(TokenEntries):
    """Stale is fine for the entries, not for the token."""


class SessionEntries(Entries):
    authentication_classes = (SessionAuthentication,)


class BearerEntries(Entries):
    authentication_classes = (BearerAuthentication,)


@api_view(["POST"])
@authentication_classes([])
@renderer_classes([JSONRenderer])
def register(request: Any) -> Response:
    """Create a user and give out the first token; with `stick`, what the documentation tells such a view to do."""
    user = User.objects.create_user(request.data["username"])
    token = new_token(user)
    if "stick" in request.data:
        stick(request, "authorization", f"Bearer {token}")
    return Response({"token": token})


def new_token_in_a_unit(request: HttpRequest) -> JsonResponse:
    """Make a token in a unit of work inside the request's."""
    with routing_session():
        token = Token.objects.create(user=User.objects.get(username=request.POST["username"]))
    return JsonResponse({"token": token.key})


def on_behalf(request: HttpRequest) -> JsonResponse:
    """What a gateway asks for, which has one token for all its users."""
    request.user = User.objects.get(username=request.headers["X-For"])
    if request.method == "POST":
        Entry.objects.create(text="x")
    return JsonResponse({"count": Entry.objects.count()})
