"""The whole journey over real HTTP: offload, one's own write on two devices, a replica killed and revived.

Nothing in here waits for time to pass, only for what must happen.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from django_pglb.testing import wait_until

from .browser import Browser, Page
from .guestbook.people import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

REPLICAS = ("replica1", "replica2")
VICTIM = "replica1"
WAIT_SECONDS = 20.0
READS = 40
LEAST_SHARE = 0.9
READERS = 4


class Disappointed(Exception):
    """The site did not do what it promises; the message says what it did."""


class Journey:
    """Goes through the site at `url` step by step, pressing its buttons. `tell` gets one line for each thing that was seen."""

    def __init__(self, url: str, tell: Callable[[str], None] = print) -> None:
        self._url = url
        self._tell = tell

    def run(self) -> bool:
        """Go through all steps; say whether the site kept its promises. Stops at the first that it did not keep."""
        for number, step in enumerate((self.offload, self.own_write, self.death, self.revival), start=1):
            self._tell(f"{number}. {step.__doc__}")
            started = time.monotonic()
            try:
                step()
            except (Disappointed, TimeoutError) as error:
                self._tell(f"   FAILED: {error}")
                return False
            self._tell(f"   ({time.monotonic() - started:.1f} s)")
        return True

    # --- Steps: their first lines are the headings of the transcript ---

    def offload(self) -> None:
        """Strangers are answered by replicas, both of them."""
        pages: list[Page] = []

        def offloaded() -> bool:
            pages[:] = [self._stranger().get() for _ in range(READS)]
            return sum(page.is_on_replicas for page in pages) >= LEAST_SHARE * READS and used() == list(REPLICAS)

        def used() -> list[str]:
            return sorted(frozenset[str]().union(*(page.aliases for page in pages if page.is_on_replicas)))

        def seen() -> str:
            on_replicas = sum(page.is_on_replicas for page in pages)
            return f"{on_replicas} of {READS} pages came from {' and '.join(used()) or 'no replica'}; the last: {pages[-1].answered_by}"

        # Each worker process finds out by itself whether a replica may be used.
        wait_until(offloaded, timeout=WAIT_SECONDS, what=lambda: f"strangers to be answered by replicas; {seen()}")
        self._tell(f"   ok  {seen()}")

    def own_write(self) -> None:
        """With replay delayed by 5 s, Ann's own entry is on her next page, on both her devices; then replicas serve her again."""
        laptop, phone = self._device("ann", "laptop"), self._device("ann", "phone")
        for replica in REPLICAS:
            self._press(replica, "delay")
        entry = self._entry("I was here")
        self._saw_own(laptop.post("sign/", text=entry), entry, "laptop, the page after the form")
        stranger = self._stranger().get()
        self._saw(
            stranger.is_on_replicas and entry not in stranger.text, f"a stranger: {stranger.answered_by}; the replicas do not have it yet"
        )
        self._saw_own(phone.get(), entry, "phone")
        self._saw_own(laptop.get(), entry, "laptop, once more")
        for replica in REPLICAS:
            self._press(replica, "resume")
        page = self._wait_for_page(phone, lambda page: page.is_on_replicas, "Ann's phone to be answered by a replica")
        self._saw(entry in page.text, f"phone, after the replay: {page.answered_by}; it has the entry")

    def death(self) -> None:
        """A replica is killed while four devices read and Ann writes: no request fails, and Ann misses nothing."""
        readers = [Reader(self._stranger()) for _ in range(READERS)]
        laptop = self._device("ann", "laptop")
        with Load(readers):
            self._wait_for_reads(readers, 10)
            self._press(VICTIM, "kill")
            for number in range(5):
                entry = self._entry(f"entry {number}")
                page = laptop.post("sign/", text=entry)
                self._saw(page.status == 200 and entry in page.text, f"Ann wrote and sees it: {page.answered_by}", quiet=number > 0)
            self._wait_for_reads(readers, 30)
        pages = [page for reader in readers for page in reader.pages]
        failed = [page for page in pages if page.status != 200]
        errors = [reader.error for reader in readers if reader.error]
        self._saw(
            not failed and not errors, f"{len(pages)} pages were read meanwhile, {len(failed)} failed; {' '.join(errors) or 'no error'}"
        )
        last = self._stranger().get()
        self._saw(VICTIM not in last.aliases, f"a stranger after its death: {last.answered_by}")

    def revival(self) -> None:
        """The replica is started again, on what the crash left, and is used again."""
        self._press(VICTIM, "revive")
        page = self._wait_for_page(self._stranger(), lambda page: VICTIM in page.aliases, f"{VICTIM} to be used again")
        self._saw(page.is_on_replicas, f"a stranger: {page.answered_by}")

    # --- Seeing ---

    def _saw(self, is_well: bool, what: str, *, quiet: bool = False) -> None:
        if not is_well:
            raise Disappointed(what)
        if not quiet:
            self._tell(f"   ok  {what}")

    def _saw_own(self, page: Page, entry: str, device: str) -> None:
        shown = "shows the entry" if entry in page.text else "does NOT show the entry"
        # A worker that has not met this device may read its session, older than the entry, on a replica: that tells whose pointer to mind.
        self._saw(entry in page.text and "behind" in page.reasons, f"{device}: {page.answered_by}; it {shown}")

    def _wait_for_page(self, browser: Browser, is_wanted: Callable[[Page], bool], what: str) -> Page:
        pages: list[Page] = []

        def came() -> bool:
            pages.append(browser.get())
            return is_wanted(pages[-1])

        wait_until(came, timeout=WAIT_SECONDS, what=lambda: f"{what}; last: {pages[-1].answered_by}")
        return pages[-1]

    def _wait_for_reads(self, readers: list[Reader], more: int) -> None:
        goals = [(reader, len(reader.pages) + more) for reader in readers]
        wait_until(
            lambda: all(len(reader.pages) >= goal or reader.error for reader, goal in goals), timeout=WAIT_SECONDS, what="readers to read"
        )

    # --- Doing ---

    def _stranger(self) -> Browser:
        return Browser(self._url)

    def _device(self, username: str, name: str) -> Browser:
        browser = Browser(self._url)
        page = browser.post("sign-in/", username=username, password=PASSWORD)
        self._saw(f"You are {username.title()}" in visible(page.text), f"{username.title()} is signed in on the {name}")
        return browser

    def _entry(self, text: str) -> str:
        return f"{text}, {time.time_ns()}"

    def _press(self, replica: str, button: str) -> None:
        page = self._stranger().post(f"hosts/{replica}/{button}/")
        complaint = re.search(r'class="message error"[^>]*>([^<]*)', page.text)
        if page.status != 200 or complaint:
            raise Disappointed(f"the button {button!r} of {replica} answered {page.status}: {complaint[1] if complaint else ''}")


class Reader:
    """Reads page after page until told to stop."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.pages: list[Page] = []
        self.error = ""

    def read(self, stop: threading.Event) -> None:
        """Read until `stop` is set or something goes wrong that no page can show."""
        try:
            while not stop.is_set():
                self.pages.append(self._browser.get())
        except OSError as error:
            self.error = str(error)


class Load:
    """Several readers at a time, each in a thread of its own, as a context manager."""

    def __init__(self, readers: list[Reader]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=reader.read, args=[self._stop]) for reader in readers]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def visible(text: str) -> str:
    """Return a page's text without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())
