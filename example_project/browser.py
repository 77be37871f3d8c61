"""A browser without a screen: cookies, forms with their CSRF token, redirects, and who answered."""

from __future__ import annotations

import html
import re
from http.cookiejar import CookieJar
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

# Longer than any answer of a site whose replica has just died.
ANSWER_SECONDS = 20.0


class Page(NamedTuple):
    """What came back: the end of all redirects."""

    status: int
    text: str
    aliases: frozenset[str]
    reasons: frozenset[str]

    @property
    def is_on_replicas(self) -> bool:
        """Whether replicas, and nobody else, answered."""
        return bool(self.aliases) and "default" not in self.aliases

    @property
    def answered_by(self) -> str:
        """Who answered and why, in words."""
        if not self.aliases:
            return "nobody said who answered"
        names = sorted("primary" if alias == "default" else alias for alias in self.aliases)
        return f"{' and '.join(names)} ({', '.join(sorted(self.reasons))})"


class Browser:
    """One device of one visitor."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cookies = CookieJar()
        # No proxy: the site is on this machine.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))

    def get(self, path: str = "") -> Page:
        """Return the page at `path`."""
        return self._open(Request(self._url + path))

    def post(self, path: str, **fields: str) -> Page:
        """Send the form at `path`, as the page that has it would; return the page that the site redirects to."""
        token = next((cookie.value for cookie in self._cookies if cookie.name == "csrftoken"), None)
        if token is None:
            self.get()
            token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        return self._open(Request(self._url + path, urlencode({**fields, "csrfmiddlewaretoken": token}).encode()))

    def _open(self, request: Request) -> Page:
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as response:
                status, headers, body = response.status, response.headers, response.read()
        except HTTPError as error:
            with error:
                status, headers, body = error.code, error.headers, error.read()
        served = re.findall(r'pglb;desc="(\S+) (\S+) \d+"', headers.get("Server-Timing", ""))
        return Page(
            status,
            html.unescape(body.decode()),
            frozenset(alias for alias, _ in served),
            frozenset(reason for _, reason in served),
        )
