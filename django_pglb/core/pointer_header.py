"""The name in `PGLB_POINTER_HEADER`: which names can carry a pointer, unharmed and unmistaken."""

from __future__ import annotations

import re
from typing import Final

from .problem import CheckId, Problem, shown

# Narrower than RFC 9110, section 5.1: WSGI cannot tell "_" from "-", and servers drop names with "_" for that reason.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}")

# Headers that HTTP, Django or proxies give a meaning, by their whole name and by how it begins.
_TAKEN = """
    age allow alt-svc authorization cache-control connection cookie date dnt etag expect expires forwarded from host keep-alive
    last-modified link location max-forwards origin pragma priority prefer range referer referrer-policy refresh retry-after server
    server-timing set-cookie strict-transport-security te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate
    x-content-type-options x-csrftoken x-frame-options x-http-method-override x-real-ip x-request-id x-requested-with
"""
TAKEN: Final = frozenset(_TAKEN.split())
TAKEN_PREFIXES: Final = ("accept", "access-control-", "content-", "cross-origin-", "if-", "proxy-", "sec-", "x-forwarded-")

EXAMPLE: Final = 'Write PGLB_POINTER_HEADER = "X-PGLB-Pointer".'


def parse_pointer_header(raw: object) -> tuple[str | None, tuple[Problem, ...]]:
    """Return the name of the header, None if there is none or it cannot be used, and what is wrong with it."""
    if raw is None:
        return None, ()
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        message = f"PGLB_POINTER_HEADER: must be the name of a header (letters, digits and hyphens) or None, not {shown(raw)}."
        return None, (Problem(CheckId.HEADER_NOT_A_NAME, message, EXAMPLE),)
    if raw.lower() in TAKEN or raw.lower().startswith(TAKEN_PREFIXES):
        message = f"PGLB_POINTER_HEADER: {shown(raw)} means something else already."
        return None, (Problem(CheckId.HEADER_IS_TAKEN, message, EXAMPLE),)
    return raw, ()
