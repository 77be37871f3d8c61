"""Pointers that a client carries itself, signed by us: the cookie's value, and exported pointers.

A forged, damaged or too old text counts as absent. A client that keeps an old one only binds itself less than it could.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from django.core import signing

from ..core.routing_session import UNBOUND, Bound
from .base import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SALT = "django_pglb.pointer"

# What a cookie may hold in any browser. Longer texts are not ours and are not even looked at.
MAX_LENGTH = 4096


def sign(bounds: Mapping[str, Bound]) -> str:
    """Return the signed text that carries what binds a client in each cluster (wall time)."""
    # An alias may have any characters, and neither a cookie nor a header takes all of them.
    text = "&".join(f"{quote(primary, safe='')}={encode(bound)}" for primary, bound in sorted(bounds.items()))
    return signing.TimestampSigner(salt=_SALT).sign(text)


def unsign(text: str, *, max_age: float | None) -> dict[str, Bound]:
    """Return what `sign` was given. Raises `ValueError` if the text is not ours, damaged, or older than `max_age` seconds.

    None: its age does not matter.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError("too long to be a signed pointer")
    try:
        limit = None if max_age is None else timedelta(seconds=max_age)
        plain = signing.TimestampSigner(salt=_SALT).unsign(text, max_age=limit)
    except signing.SignatureExpired as error:
        raise ValueError(f"the signed pointer has expired: it is older than POINTER_SECONDS, {max_age:g} s") from error
    except signing.BadSignature as error:
        raise ValueError("not a signed pointer of this site: it was damaged, or signed with another SECRET_KEY") from error
    return dict(_entry(part) for part in plain.split("&") if part)


def unsign_or_nothing(text: str | None, *, max_age: float) -> dict[str, Bound]:
    """Return what a text from outside carries; nothing if it is not acceptable, which is as good as absent."""
    try:
        return unsign(text, max_age=max_age) if text else {}
    except ValueError:
        return {}


def merge(all_bounds: Iterable[Mapping[str, Bound]]) -> dict[str, Bound]:
    """Return what binds in each cluster whoever is bound by all of these."""
    merged: dict[str, Bound] = {}
    for bounds in all_bounds:
        for primary, bound in bounds.items():
            merged[primary] = merged.get(primary, UNBOUND).merged(bound)
    return merged


def renew(carried: Mapping[str, Bound], saved: Mapping[str, Bound]) -> dict[str, Bound]:
    """Return what binds whoever carried the one, now that the other was saved."""
    return {**carried, **{primary: carried.get(primary, UNBOUND).renewed(bound) for primary, bound in saved.items()}}


def _entry(part: str) -> tuple[str, Bound]:
    primary, separator, value = part.rpartition("=")
    return (unquote(primary), decode(value)) if separator else ("", UNBOUND)
