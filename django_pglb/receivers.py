"""Listens to Django: who logs in and out, and settings that change under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import post_delete, post_save, pre_migrate
from django.test.signals import setting_changed

from . import runtime, stale_saves
from .context import current_scope
from .identity import AUTHORIZATION, USER, session_owners
from .refusals import refuse_replica
from .units import stick

if TYPE_CHECKING:
    from django.http import HttpRequest

SETTINGS_THAT_MATTER = frozenset({"PGLB", "PGLB_ENABLED", "PGLB_POINTER_HEADER", "PGLB_TASK_CONSISTENCY", "DATABASES", "CACHES", "DEBUG"})


def connect() -> None:
    """Connect all receivers; safe to call again."""
    for signal in (user_logged_in, user_logged_out):
        signal.connect(bind_user, dispatch_uid="django_pglb.bind_user")
    if apps.is_installed("rest_framework.authtoken"):
        for model_signal in (post_save, post_delete):
            for model in ("Token", "TokenProxy"):
                model_signal.connect(bind_token, sender=f"authtoken.{model}", dispatch_uid=f"django_pglb.bind_token.{model}")
    pre_migrate.connect(refuse_to_migrate_replica, dispatch_uid="django_pglb.refuse_to_migrate_replica")
    setting_changed.connect(forget_settings, dispatch_uid="django_pglb.forget_settings")
    stale_saves.follow_settings()


def bind_user(request: HttpRequest | None, user: Any, **_: object) -> None:
    """Bind whoever logs in or out: the login's own writes must be seen under the user id as well, and the session changes owner."""
    if request is None:
        return
    session_owners.forget(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    session_owners.forget(getattr(getattr(request, "session", None), "session_key", None))
    if user is not None and user.pk is not None:
        stick(request, USER, str(user.pk))


def bind_token(instance: Any, **_: object) -> None:
    """Bind whoever will use a token that was made here: nothing else connects them. A token that was revoked is refused at once, too."""
    routing = current_scope().routing
    # Each unit of work saves for its own, and the innermost one may end before the token is committed.
    for unit in () if routing is None else (routing, *routing.around()):
        # The word before the key is a choice of the authentication class; these two are what people choose.
        for keyword in ("Token", "Bearer"):
            unit.identities.add(AUTHORIZATION, f"{keyword} {instance.key}")


def refuse_to_migrate_replica(using: str, **_: object) -> None:
    """Stop `migrate --database` with a replica: nothing would be done there, and the migrations noted as applied, on the primary."""
    refuse_replica(using, "migrate")


def forget_settings(setting: str, **_: object) -> None:
    if setting in SETTINGS_THAT_MATTER:
        runtime.reset()
        stale_saves.follow_settings()
