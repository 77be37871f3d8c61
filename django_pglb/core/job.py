"""How a background job reads."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Consistency(StrEnum):
    """The levels of `db_consistency` and `PGLB_TASK_CONSISTENCY`, which are public. None is renamed."""

    ALWAYS = "always"
    """From the primary, always."""
    STICKY = "sticky"
    """From a replica that has what the job's publisher wrote, else from the primary."""
    DELAYED = "delayed"
    """The same, but where no replica has it yet, the job comes again once, a second later."""
