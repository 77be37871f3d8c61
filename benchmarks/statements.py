"""What it costs to tell a read from a write: `python -m benchmarks.statements`."""

from __future__ import annotations

import platform
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

from django_pglb.core.statements import TEXTS_REMEMBERED, classify, judge

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
ROUNDS = 20_000


def measure(call: Callable[[str], object], text: str, rounds: int) -> float:
    """Return the median in microseconds. Each call gets a new string, whose hash is not known yet, as from Django's compiler."""
    encoded = text.encode()
    times = []
    for _ in range(rounds):
        copy = encoded.decode()
        started = perf_counter_ns()
        call(copy)
        times.append(perf_counter_ns() - started)
    return median(times) / 1000


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}; {TEXTS_REMEMBERED} texts remembered; medians in µs")
    print(f"{'':<18}{'characters':>12}{'seen before':>14}{'new':>10}")
    for name, text in TEXTS.items():
        warm, cold = measure(classify, text, ROUNDS), measure(judge, text, ROUNDS // 20)
        print(f"{name:<18}{len(text):>12}{warm:>14.2f}{cold:>10.1f}")


if __name__ == "__main__":
    main()
