"""The example keeps its promises, says so, and would say if it did not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path

import pytest

from django_pglb.core.decision import Reason
from django_pglb.testing import wait_until
from example_project.browser import Browser, Page
from example_project.guestbook.answers import MEANINGS
from example_project.journey import Disappointed, Journey

ROOT = Path(__file__).parent.parent
# Some seconds on a quiet machine; starting three servers and three Pythons takes longer on a busy one.
RUN_SECONDS = 120


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "example_project", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(**environment: str) -> tuple[int, str]:
    """Run the journey in a process of its own; return its exit status and transcript."""
    process = start("--check", **environment)
    try:
        transcript, complaints = process.communicate(timeout=RUN_SECONDS)
    finally:
        process.kill()
    return process.returncode, f"{transcript}\n{complaints}"


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 10)
def test_journey_succeeds() -> None:
    """All four steps are gone through, and the exit status is 0."""
    status, transcript = check()
    assert status == 0, transcript
    assert re.findall(r"^(\d)\. ", transcript, re.MULTILINE) == ["1", "2", "3", "4"]
    assert "FAILED" not in transcript


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 10)
def test_journey_fails_where_nothing_is_balanced() -> None:
    """With load balancing switched off no replica answers; the transcript says so and the exit status is 1."""
    status, transcript = check(PGLB_ENABLED="0")
    assert status == 1, transcript
    assert re.search(r"FAILED: .*strangers to be answered by replicas", transcript)


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 10)
def test_site_serves_until_it_is_asked_to_end() -> None:
    """It prints where it is and a line that runs `check_replicas`; both work; then it ends without a trace."""
    process = start("--port", "0")
    try:
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, f"it ended early: {printed}"
            printed += line
        url = re.search(r"http://\S+", printed)[0]
        page = Browser(url).get()
        assert page.status == 200
        assert "Sign in as Ann" in page.text
        line = re.search(r"cd .* check_replicas", printed)[0]
        looks: list[str] = []

        def all_well() -> bool:
            looked = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
            looks.append(looked.stdout + looked.stderr)
            return looked.returncode == 0

        # Once is enough on a quiet machine; on a busy one a host may take more than CHECK_TIMEOUT to answer.
        wait_until(all_well, timeout=60, what=lambda: f"check_replicas to find all well:\n{looks[-1]}")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        with pytest.raises(OSError, match="refused"):
            Browser(url).get()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 10)
def test_site_ends_when_the_start_command_is_killed() -> None:
    """SIGKILL leaves nobody time to clean up; the site goes away all the same."""
    process = start("--port", "0")
    try:
        url = ""
        while not url:
            line = process.stdout.readline()
            assert line
            url = "".join(re.findall(r"http://\S+", line))
        process.kill()
        wait_until(lambda: is_gone(url), timeout=30, what="the site to end")
    finally:
        process.kill()
        process.communicate()


def is_gone(url: str) -> bool:
    try:
        Browser(url).get()
    except ConnectionError:
        return True
    except HTTPException:
        return False  # it ended in the middle of an answer
    except OSError as error:
        return "refused" in str(error)
    return False


def test_every_reason_has_words_for_visitors() -> None:
    """The pages can explain each reason."""
    assert set(MEANINGS) == set(Reason)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [("nothing", {"behind"}), ("I was here", {"replica"})],
    ids=["the entry is missing", "a replica is said to have it"],
)
def test_journey_is_disappointed_by_a_page_that_breaks_the_promise(text: str, reasons: set[str]) -> None:
    """A page without the own entry fails, and so does one that a replica claims to have answered while it cannot have the entry."""
    page = Page(200, text, frozenset({"default"}), frozenset(reasons))
    with pytest.raises(Disappointed, match="laptop"):
        Journey("http://127.0.0.1:1/")._saw_own(page, "I was here", "laptop")
