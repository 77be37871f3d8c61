"""Names in the page's tables: those who fill them and those who print them agree here."""

from __future__ import annotations

ROUTING = "routing"
IDLE_CURSOR = "cursor on a stand-in"
REAL_CURSOR = "cursor on a server"
CLASSIFIER = "classifier"
MIDDLEWARE = "middleware"
STORE = "store"
TOPOLOGY = "topology"

# Columns.
DIRECT, BY_DJANGO = "asked directly", "by `django.db.router`"
DJANGO, OURS, MORE = "Django", "django-pglb", "more"
MORE_CPU, MORE_CALLS = "more CPU time", "more function calls"
NOTHING = "a middleware that does nothing"
TIME = "median"

# Rows that stand beside a target, or in two tables.
ON_REPLICA, ON_PRIMARY = "read on a replica", "read on the primary"
CREATION = ("with `connection.cursor()`", "cursor made before")
ANONYMOUS_NOTHING, ANONYMOUS_READ = "anonymous, reads nothing", "anonymous, one read"

# Pages whose messages are counted.
ANONYMOUS, SIGNED_IN, BOUND, POST = "anonymous page", "signed-in page", "the same, after a write", "POST that writes"
PAGES = (ANONYMOUS, SIGNED_IN, BOUND, POST)
