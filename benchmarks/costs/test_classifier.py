"""What it costs to tell a read from a write: of a text that was seen before, and of a new one."""

from __future__ import annotations

import pytest

from django_pglb.core.statements import classify, judge

from .conftest import Case
from .tables import CLASSIFIER

TEXTS = {
    "small read": 'SELECT "auth_user"."id", "auth_user"."username" FROM "auth_user" WHERE "auth_user"."id" = %s LIMIT 21',
    "typical read": (
        'SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."username", "auth_user"."email" '
        'FROM "auth_user" INNER JOIN "auth_user_groups" ON ("auth_user"."id" = "auth_user_groups"."user_id") WHERE '
        '("auth_user_groups"."group_id" = %s AND UPPER("auth_user"."username"::text) LIKE UPPER(%s)) ORDER BY 4 ASC LIMIT 21'
    ),
    "1,000 parameters": f'SELECT "auth_user"."id" FROM "auth_user" WHERE "auth_user"."id" IN ({", ".join(["%s"] * 1000)})',
    "write": 'UPDATE "auth_user" SET "last_login" = %s WHERE "auth_user"."id" = %s',
    "many rows": f'INSERT INTO "auth_group" ("name") VALUES {", ".join(["(%s)"] * 10_000)}',
}


@pytest.mark.parametrize(("column", "call"), [("seen before", classify), ("new", judge)])
@pytest.mark.parametrize("name", TEXTS)
def test_classifier(name: str, column: str, call: object, fill: Case) -> None:
    text = TEXTS[name]
    encoded = text.encode()
    # Each call gets a new string, whose hash is not known yet, as from Django's compiler.
    fill(CLASSIFIER, f"{name} ({len(text):,} characters)", column, call, fresh=lambda: (encoded.decode(),))
