"""Querysets that use what Django's PostgreSQL ORM and `django.contrib.postgres` can emit. None of them writes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.auth.models import User
from django.contrib.postgres import aggregates as pg_aggregates
from django.contrib.postgres import fields as pg_fields
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.functions import RandomUUID, TransactionNow
from django.contrib.postgres.search import SearchQuery, SearchRank, SearchVector
from django.db import models
from django.db.models import F, Q, Value, Window, functions
from django.db.models.expressions import Case, Exists, OuterRef, Subquery, When
from django.test.utils import isolate_apps

AGES: list[Callable[..., Any]] = [
    functions.ExtractYear, functions.ExtractIsoYear, functions.ExtractWeek, functions.ExtractWeekDay, functions.ExtractIsoWeekDay,
    functions.ExtractQuarter, functions.ExtractSecond, functions.TruncDay, functions.TruncWeek, functions.TruncQuarter,
    functions.TruncSecond, functions.TruncDate, functions.TruncTime,
]  # fmt: skip
NUMERIC: list[Callable[..., Any]] = [
    functions.Abs, functions.ACos, functions.ASin, functions.ATan, functions.Ceil, functions.Cos, functions.Cot, functions.Degrees,
    functions.Exp, functions.Floor, functions.Ln, functions.Radians, functions.Round, functions.Sign, functions.Sin, functions.Sqrt,
    functions.Tan,
]  # fmt: skip
TEXTUAL: list[Callable[..., Any]] = [
    functions.Chr, functions.Length, functions.Lower, functions.LTrim, functions.MD5, functions.Ord, functions.Reverse, functions.RTrim,
    functions.SHA224, functions.SHA256, functions.SHA384, functions.SHA512, functions.Trim, functions.Upper,
]  # fmt: skip
RANKS: list[Callable[..., Any]] = [
    functions.CumeDist, functions.DenseRank, functions.PercentRank, functions.Rank, functions.RowNumber, lambda: functions.Ntile(4),
    lambda: functions.Lag("id"), lambda: functions.Lead("id"), lambda: functions.FirstValue("id"), lambda: functions.LastValue("id"),
    lambda: functions.NthValue("id", 2),
]  # fmt: skip
STATISTICS: list[Callable[..., Any]] = [
    pg_aggregates.Corr, pg_aggregates.CovarPop, pg_aggregates.RegrAvgX, pg_aggregates.RegrAvgY, pg_aggregates.RegrCount,
    pg_aggregates.RegrIntercept, pg_aggregates.RegrR2, pg_aggregates.RegrSlope, pg_aggregates.RegrSXX, pg_aggregates.RegrSXY,
    pg_aggregates.RegrSYY,
]  # fmt: skip
LOOKUPS = ["exact", "iexact", "contains", "icontains", "startswith", "istartswith", "endswith", "iendswith", "regex", "iregex"]


def make_model() -> type[models.Model]:
    """Return a model with the fields that only PostgreSQL has."""
    with isolate_apps("django.contrib.auth"):

        class Thing(models.Model):
            tags = pg_fields.ArrayField(models.CharField(max_length=10))
            numbers = pg_fields.IntegerRangeField()
            period = pg_fields.DateTimeRangeField()
            data = models.JSONField()
            address = models.GenericIPAddressField()
            spent = models.DurationField()
            price = models.DecimalField(max_digits=5, decimal_places=2)

            class Meta:
                app_label = "auth"
                db_table = "statement_thing"

    return Thing


def querysets(thing: type[models.Model]) -> Iterator[models.QuerySet[Any]]:
    yield from _plain()
    yield from _lookups()
    yield from _functions()
    yield from _aggregates()
    yield from _postgres_fields(thing)


def _plain() -> Iterator[models.QuerySet[Any]]:
    users = User.objects.all()
    yield users
    yield users.filter(pk__in=[1, 2, 3]).exclude(groups__name="a").order_by("-username")[5:10]
    yield users.filter(Q(pk=1) | ~Q(username="a") & Q(last_login__isnull=True)).distinct()
    yield users.order_by("email", "id").distinct("email")
    yield users.filter(pk=1).union(users.filter(pk=2), users.filter(pk=3), all=True).order_by("id")[:2]
    yield users.intersection(users.filter(pk=1))
    yield users.difference(users.filter(pk=1))
    yield users.annotate(n=models.Count("groups")).filter(n__gt=1).values("email").annotate(m=models.Max("id"))
    yield users.annotate(other=Subquery(User.objects.filter(pk=OuterRef("pk")).values("email")[:1])).filter(
        Exists(users.filter(pk=OuterRef("pk")))
    )
    yield users.annotate(x=Case(When(pk=1, then=Value("a")), default=Value("b"))).order_by(F("x").desc(nulls_last=True))
    yield users.annotate(x=F("id") % 3 + F("id") ** 2, y=F("id").bitand(3), z=F("date_joined") - F("last_login"))
    yield users.extra(select={"x": "1"}, where=["id > %s"], params=[1])
    yield User.objects.none() | users.filter(date_joined__date=datetime.date(2020, 1, 1))
    yield users.filter(date_joined__year=2020, date_joined__week_day=2, date_joined__time__gt=datetime.time(1))
    yield users.dates("date_joined", "month")
    yield users.datetimes("date_joined", "hour")


def _lookups() -> Iterator[models.QuerySet[Any]]:
    for lookup in LOOKUPS:
        yield User.objects.filter(**{f"username__{lookup}": "50%_a\\'"})
        yield User.objects.filter(**{f"username__{lookup}": F("email")})
        yield User.objects.filter(**{f"username__{lookup}": Subquery(User.objects.values("email")[:1])})


def _functions() -> Iterator[models.QuerySet[Any]]:
    for make in NUMERIC:
        yield User.objects.annotate(x=make(F("id") * 0.001))
    for make in TEXTUAL:
        yield User.objects.annotate(x=make("id" if make is functions.Chr else "username"))
    for make in AGES:
        yield User.objects.annotate(x=make("date_joined"))
    for make in RANKS:
        yield User.objects.annotate(x=Window(make(), partition_by=[F("email")], order_by=F("id").asc()))
    frame = models.RowRange(start=-1, end=0)
    yield User.objects.annotate(x=Window(models.Sum("id"), order_by="id", frame=frame))
    text = F("username")
    yield User.objects.annotate(
        a=functions.Cast("id", models.TextField()), b=functions.Coalesce(text, Value("x")), c=functions.Collate(text, "C"),
        d=functions.Greatest("id", 2), e=functions.Least("id", 2), f=functions.NullIf(text, Value("x")),
        g=functions.Concat(text, Value("-"), text), h=functions.Left(text, 2), i=functions.Right(text, 2), j=functions.LPad(text, 9),
        k=functions.RPad(text, 9), l=functions.Repeat(text, 2), m=functions.Replace(text, Value("a")),
        n=functions.StrIndex(text, Value("a")), o=functions.Substr(text, 2, 2), p=functions.Now(), q=functions.Random(), r=functions.Pi(),
        s=functions.Power("id", 2), t=functions.Mod("id", 2), u=functions.Log(2.0, F("id") + 1), v=functions.ATan2("id", 2),
        w=functions.JSONObject(a="id"), x=TransactionNow(), y=RandomUUID(),
    )  # fmt: skip


def _aggregates() -> Iterator[models.QuerySet[Any]]:
    grouped = User.objects.values("email")
    for make in (models.Avg, models.Count, models.Max, models.Min, models.StdDev, models.Sum, models.Variance):
        yield grouped.annotate(x=make("id", filter=Q(pk__gt=1)), y=make("id"))
    for make in STATISTICS:
        yield grouped.annotate(x=make(y="id", x="id"))
    yield grouped.annotate(
        a=pg_aggregates.ArrayAgg("username", distinct=True), e=pg_aggregates.BoolAnd("is_staff"), f=pg_aggregates.BoolOr("is_staff"),
        g=pg_aggregates.JSONBAgg("username"),
        h=models.Count("id", distinct=True),
    )  # fmt: skip
    vector = SearchVector("username", weight="A", config="english") + SearchVector("email", weight="B")
    for kind in ("plain", "phrase", "raw", "websearch"):
        query = SearchQuery("a", search_type=kind, config="english")
        yield User.objects.annotate(search=vector, rank=SearchRank(vector, query, normalization=Value(2), cover_density=True)).filter(
            search=query
        )


def _postgres_fields(thing: type[models.Model]) -> Iterator[models.QuerySet[Any]]:
    things = thing._base_manager.all()
    now = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for lookup, value in {
        "tags__contains": ["a"], "tags__contained_by": ["a"], "tags__overlap": ["a"], "tags__len": 1, "tags__0": "a", "tags__0_2": ["a"],
        "numbers__contains": 1, "numbers__overlap": (1, 2), "numbers__fully_lt": (1, 2), "numbers__adjacent_to": (1, 2),
        "numbers__isempty": False, "numbers__startswith": 1, "numbers__endswith": 2, "numbers__lower_inc": True,
        "numbers__upper_inf": True, "period__contains": now, "data__a": 1, "data__a__b__0": "x", "data__a__icontains": "x",
        "data__contains": {"a": 1}, "data__has_key": "a", "data__has_any_keys": ["a"], "data__has_keys": ["a", "b"],
        "data__a__isnull": True, "address": "127.0.0.1", "address__contains": "127", "spent__gt": datetime.timedelta(1),
        "price__in": [1, 2],
    }.items():  # fmt: skip
        yield things.filter(**{lookup: value})
    yield things.annotate(x=ArraySubquery(User.objects.values("id"))).annotate(total=models.Sum("price"), spent_avg=models.Avg("spent"))
    yield things.values("price").annotate(x=pg_aggregates.ArrayAgg("tags"), y=pg_aggregates.JSONBAgg("data"), z=models.Sum("spent"))
