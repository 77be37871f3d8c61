"""Gives up a read on a replica that has not answered in time (`READ_TIMEOUT`), so that another host can.

The checker's thread ends the connection: whoever waits for an answer can do nothing else. Nothing is asked of the server, which may be
the one that stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from django.db import DatabaseError, OperationalError

from ..health.clock import now
from .errors import ReadTimedOut

if TYPE_CHECKING:
    from ..health.conversations import Conversation


class AnswerInTime:
    """Raises Django's `OperationalError` from `ReadTimedOut` if what is asked in here is not answered within so many seconds."""

    __slots__ = ("_alias", "_conversation", "_seconds")

    def __init__(self, alias: str, conversation: Conversation, seconds: float) -> None:
        self._alias = alias
        self._conversation = conversation
        self._seconds = seconds

    def begin(self) -> None:
        self._conversation.expect_answer(now() + self._seconds)

    def is_late(self) -> bool:
        """End the wait, and say whether it was ended before. Call it once."""
        return not self._conversation.answer_came()

    def failure(self) -> OperationalError:
        """Return what to raise when it is late."""
        text = f"{self._alias} gave no answer within READ_TIMEOUT ({self._seconds:g} s)"
        error = OperationalError(text)
        error.__cause__ = ReadTimedOut(text)
        return error

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # An answer that came as it was given up is not used either: the connection is being ended.
        if self.is_late() and (error is None or isinstance(error, DatabaseError | psycopg.Error)):
            raise self.failure()
