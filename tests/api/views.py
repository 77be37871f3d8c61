"""The guestbook's entries, read and written with a token of the database, a session, or a signed bearer token."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.utils.decorators import method_decorator
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.decorators import api_view, authentication_classes, renderer_classes
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ModelViewSet

from django_pglb import stick, use_replicas

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
