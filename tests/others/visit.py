"""What a journey is made with: a signed-in browser whose pages say where they were read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.test import Client

from django_pglb.core.decision import Reason
from django_pglb.signals import statement_routed

NAME, PASSWORD = "ann", "secret"


class Visit:
    """One browser, and where the statements of its pages ran."""

    def __init__(self) -> None:
        self.client = Client()
        self.ran: Counter[tuple[str, str]] = Counter()
        self.shown: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        statement_routed.connect(self._note)

    def _note(self, decision: Any, is_write: bool, **_: object) -> None:
        if decision.reason is not Reason.OUTSIDE_SESSION and not is_write:
            self.ran["replica" if decision.alias != "default" else "default", str(decision.reason)] += 1

    def get(self, path: str, *, status: int = 200) -> str:
        """Return the page."""
        return self._text(self.client.get(path, follow=True), status)

    def post(self, path: str, data: dict[str, Any] | None = None, *, status: int = 200, **options: Any) -> str:
        """Send a form and return the page that follows."""
        return self._text(self.client.post(path, data or {}, follow=True, **options), status)

    def sign_in(self) -> None:
        """Sign in as the superuser."""
        assert "Log out" in self.post("/admin/login/?next=/admin/", {"username": NAME, "password": PASSWORD})

    def sees(self, path: str, *texts: str, without: tuple[str, ...] = ()) -> None:
        """Assert what a page shows, now and once more when the replicas have it."""
        self.shown[path] = (texts, without)
        self._check(path, texts, without)

    def look_again(self) -> None:
        """Look at the pages of the latest step again."""
        for path, (texts, without) in self.shown.items():
            self._check(path, texts, without)

    def _check(self, path: str, texts: tuple[str, ...], without: tuple[str, ...]) -> None:
        page = self.get(path)
        missing = [text for text in texts if text not in page]
        assert not missing, f"{path} lacks {missing}"
        left = [text for text in without if text in page]
        assert not left, f"{path} still has {left}"

    def _text(self, response: Any, status: int) -> str:
        assert response.status_code == status, f"{response.request['PATH_INFO']}: {response.status_code} instead of {status}"
        content = b"".join(response.streaming_content) if response.streaming else response.content
        return str(content.decode(errors="replace"))
