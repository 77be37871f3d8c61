"""One run, whose failure must not lose the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class NotInstalled(Exception):
    """A contender is not there to be measured; the text says what to install."""


def attempt(what: str, run: Callable[[], Result]) -> Result | str:
    """Return what `run` returns, or why there is nothing."""
    started = time.monotonic()
    try:
        result = run()
    except NotInstalled as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the table, and the others go on
        traceback.print_exc()
        return f"could not be measured: {type(error).__name__}"
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
    return result
