"""The two users of the site. Their password is no secret: it is shown on every page."""

from __future__ import annotations

USERNAMES = ("ann", "bob")
PASSWORD = "guestbook"
