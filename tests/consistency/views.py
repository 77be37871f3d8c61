"""The site's pages: three ways to write and four ways to read what the user wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, connections, router, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse

from tests.served.models import Register

from .models import Token
from .wording import HOOK, ROWS_DELIVERED


def write(request: HttpRequest, kind: str) -> HttpResponse:
    """Raise the user's register and keep the token, in one transaction."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    user_id = _user_id(request)
    if user_id is None:
        return JsonResponse({}, status=401)
    WRITES[kind](user_id, request.POST["token"])
    if level := request.POST.get("task"):
        # Imported here: the controls without our package have no tasks.
        from .tasks import publish

        publish(level, request.POST["token"] + (HOOK if kind == "hook" else ""))
    return JsonResponse({})


def read(request: HttpRequest, kind: str) -> HttpResponse:
    """Answer the user's register, and then their tokens and those of whom they follow: what others write may go back in time, too."""
    user_id = _user_id(request)
    if user_id is None:
        return JsonResponse({}, status=401)
    value, tokens = READS[kind](user_id, request.GET["follow"])
    return JsonResponse({"value": value, "tokens": tokens})


class TellError:
    """Middleware that answers with what a view raised, for the history. It is as much an error as Django's own page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        cause = error.__cause__
        notes = " ".join(getattr(error, "__notes__", ()))
        text = f"{notes} {type(error).__name__} <- {type(cause).__name__} {getattr(cause, 'sqlstate', None)}: {error}"
        return JsonResponse({"error": text.strip()[:500]}, status=500)


def _user_id(request: HttpRequest) -> int | None:
    """Return who asks: a program by its header, else whoever is signed in."""
    _, _, name = request.headers.get("Authorization", "").partition("Token ")
    if name:
        return User.objects.values_list("pk", flat=True).get(username=name)
    return request.user.pk if request.user.is_authenticated else None


# --- Writing ---


def _write_orm(user_id: int, token: str) -> None:
    with transaction.atomic():
        own = Register.objects.select_for_update().get(user_id=user_id)
        own.value += 1
        own.save(update_fields=["value"])
        Token.objects.create(user_id=user_id, token=token)


def _write_raw(user_id: int, token: str) -> None:
    """One statement, in autocommit."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH raised AS (UPDATE served_register SET value = value + 1 WHERE user_id = %s RETURNING user_id)"
            " INSERT INTO consistency_token (user_id, token) SELECT user_id, %s FROM raised",
            [user_id, token],
        )


def _write_hook(user_id: int, token: str) -> None:
    with transaction.atomic():
        _write_orm(user_id, token)
        transaction.on_commit(lambda: _write_orm(user_id, token + HOOK))


WRITES: dict[str, Callable[[int, str], None]] = {"orm": _write_orm, "raw": _write_raw, "hook": _write_hook}


# --- Reading ---


def _tokens(user_id: int, followed: str) -> QuerySet[Token, str]:
    return Token.objects.filter(Q(user_id=user_id) | Q(user__username=followed)).values_list("token", flat=True)


def _read_orm(user_id: int, followed: str) -> tuple[int, list[str]]:
    value = Register.objects.get(user_id=user_id).value
    return value, list(_tokens(user_id, followed))


def _read_iterator(user_id: int, followed: str) -> tuple[int, list[str]]:
    value = Register.objects.values_list("value", flat=True).get(user_id=user_id)
    tokens: list[str] = []
    try:
        tokens.extend(_tokens(user_id, followed).iterator(chunk_size=10))
    except Exception as error:
        if tokens:
            # Nobody can take over from here: another server has another snapshot.
            error.add_note(ROWS_DELIVERED)
        raise
    return value, tokens


def _read_raw(user_id: int, followed: str) -> tuple[int, list[str]]:
    with _connection_for_read().cursor() as cursor:
        cursor.execute("SELECT value FROM served_register WHERE user_id = %s", [user_id])
        value: int = cursor.fetchone()[0]
        cursor.execute(
            "SELECT token FROM consistency_token WHERE user_id = %s"
            " UNION ALL SELECT token FROM consistency_token JOIN auth_user ON auth_user.id = user_id WHERE username = %s",
            [user_id, followed],
        )
        return value, [token for (token,) in cursor.fetchall()]


def _read_slow(user_id: int, followed: str) -> tuple[int, list[str]]:
    """Read for some tens of milliseconds first: long enough for replay to get in the way."""
    with _connection_for_read().cursor() as cursor:
        cursor.execute("SELECT sum(a.value::bigint * b.value) FROM consistency_noise a, consistency_noise b")
    return _read_orm(user_id, followed)


READS: dict[str, Callable[[int, str], tuple[int, list[str]]]] = {
    "orm": _read_orm,
    "iterator": _read_iterator,
    "raw": _read_raw,
    "slow": _read_slow,
}


def _connection_for_read() -> Any:
    if not apps.is_installed("django_pglb"):
        return connections[router.db_for_read(Token)]
    from django_pglb import connection_for_read

    return connection_for_read()
