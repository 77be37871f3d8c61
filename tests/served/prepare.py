"""Makes the served site's tables and users; run as a program: `python -m tests.served.prepare`."""

from __future__ import annotations

import os

import django

USERS = 64
PASSWORD = "secret"


def username(number: int) -> str:
    return f"user{number}"


def prepare() -> None:
    """Declare that the new Redis has lost nothing, and create the tables, and `USERS` users with a register each."""
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from django_pglb.runtime import get_runtime

    from .models import Register

    call_command("migrate", verbosity=0)
    users = User.objects.bulk_create(User(username=username(number), password=make_password(PASSWORD)) for number in range(USERS))
    Register.objects.bulk_create(Register(user=user) for user in users)
    get_runtime().vouch("default")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.served.settings")
    django.setup()
    prepare()
