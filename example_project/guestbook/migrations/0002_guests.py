"""The two users, so that the first visitor can sign in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import migrations

from ..people import PASSWORD, USERNAMES


def create_guests(apps: Any, schema_editor: Any) -> None:
    users = apps.get_model("auth", "User").objects.using(schema_editor.connection.alias)
    for username in USERNAMES:
        users.get_or_create(username=username, defaults={"password": make_password(PASSWORD), "first_name": username.title()})


class Migration(migrations.Migration):
    dependencies = (("guestbook", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length"))

    operations = (migrations.RunPython(create_guests, migrations.RunPython.noop),)
