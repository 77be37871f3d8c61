"""Makes the site's tables, users and their sessions, and prints the session keys as JSON: `python -m benchmarks.site.prepare`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import django

USERS = 200
DEVICES_PER_USER = 2
POSTS = 2000
GROUPS = 5
MESSAGES_PER_USER = 10


def prepare() -> list[list[str]]:
    """Fill the empty database. Returns the session keys of each user's devices."""
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command

    from .models import Message, Post, Register

    call_command("migrate", verbosity=0)
    users = User.objects.bulk_create(User(username=f"user{number}", password="!") for number in range(USERS))
    Register.objects.bulk_create(Register(user=user) for user in users)
    authors = itertools.islice(itertools.cycle(users), POSTS)
    Post.objects.bulk_create(Post(author=author, text="What somebody has written, about as long as usual.") for author in authors)
    Message.objects.bulk_create(
        Message(recipient=user, text="Hello", is_read=bool(number % 2)) for user in users for number in range(MESSAGES_PER_USER)
    )
    groups = Group.objects.bulk_create(Group(name=f"group{number}") for number in range(GROUPS))
    for number, group in enumerate(groups):
        group.user_set.add(*users[number::GROUPS])
    return [[sign_in(user) for _ in range(DEVICES_PER_USER)] for user in users]


def sign_in(user: Any) -> str:
    """Return the key of a new session of `user`, without the slow work on a password."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return str(session.session_key)


if __name__ == "__main__":
    django.setup()
    print(json.dumps(prepare()))
