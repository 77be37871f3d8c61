"""What is logged once per change of state is logged once a minute at most: an outsider may change a state with each request."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from django_pglb import runtime
from django_pglb.identity import session_owners
from django_pglb.jobs import bounds_of_text
from django_pglb.notices import SECONDS_BETWEEN, Notices
from django_pglb.stores.carried import sign

from .fix_site import Site


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_change_is_news_once_and_none_is_before_a_minute_has_passed() -> None:
    """Who finds it in the same state after that is told: nothing stays unsaid."""
    clock = Clock()
    notices = Notices(clock)
    assert not notices.is_news("store", None)
    assert [notices.is_news("store", state) for state in ("down", "down", None, None)] == [True, False, True, False]
    assert notices.is_news("other", "down")
    clock.now += 1
    assert [notices.is_news("store", state) for state in ("down", None) * 50] == [False] * 100
    clock.now += SECONDS_BETWEEN
    assert [notices.is_news("store", state) for state in ("down", "down")] == [True, False]
    assert [notices.is_news("store", "lost"), notices.is_news("store", None)] == [True, True]


def lines(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("django_pglb") and record.levelname != "DEBUG"]


def test_session_that_no_database_would_look_for_is_no_trouble(site: Site, user: User, caplog: Any) -> None:
    """A cookie may name any session: this one is not there, as others that are made up."""
    good = Client()
    good.force_login(user)
    site.wait_until_seen()
    caplog.clear()
    for _ in range(3):
        assert Client().get("/newest/", headers={"Cookie": f'sessionid="{"a" * 31}\\000"'}).status_code == 200
        session_owners.clear()
        assert good.get("/newest/").status_code == 200
    assert lines(caplog) == []


def test_sessions_that_cannot_be_loaded_among_good_ones_are_logged_once(site: Site, caplog: Any) -> None:
    """As those of a cache that answers now and then."""
    for _ in range(10):
        runtime.get_runtime().note_session(OSError())
        runtime.get_runtime().note_session(None)
    assert [line.partition(" (")[0] for line in lines(caplog)] == ["A session could not be loaded", "Sessions can be loaded again."]


def test_texts_of_jobs_that_cannot_be_read_among_good_ones_are_logged_once(site: Site, caplog: Any) -> None:
    """As those of another site on the same broker."""
    for _ in range(10):
        bounds_of_text("forged")
        bounds_of_text(sign({}))
    assert len(lines(caplog)) == 2


def test_positions_that_are_taken_now_and_then_are_logged_once(site: Site, caplog: Any) -> None:
    """As beside a primary that is slow."""
    for _ in range(10):
        runtime.get_runtime().note_position("default", OSError())
        runtime.get_runtime().note_position("default", None)
    assert len(lines(caplog)) == 2
