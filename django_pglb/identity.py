"""Who a request acts for."""

from __future__ import annotations

import hashlib
import threading
from contextlib import nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import DataError
from django.utils.functional import LazyObject

from .core.asker import BEING_FOUND, FOUND, Asker
from .core.routing_session import UNBOUND
from .forks import after_fork
from .glance import glancing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from django.http import HttpRequest

    from .core.routing_session import Bound, Identity

SESSION, AUTHORIZATION, USER = "session", "authorization", "user"

# The owner of a token that several users have.
NOBODY = ""

# Reads rows, and keeps what they bring nowhere but in the session.
SESSIONS_IN_ROWS = "django.contrib.sessions.backends.db"

# Here whatever the client sends is a key, and what is not signed by this site a session without data.
SESSIONS_IN_COOKIES = "django.contrib.sessions.backends.signed_cookies"

# Enough for the users that one process sees at a time; an entry is about 200 bytes.
MAX_REMEMBERED_OWNERS = 10_000


def from_request(request: HttpRequest) -> Iterable[Identity]:
    """Return what identifies the client of `request` without touching the database: session cookie and Authorization header.

    The default of `IDENTITY`. Write your own to add, say, an API key; call this one from it.
    """
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if session_key:
        yield SESSION, session_key
    authorization = request.META.get("HTTP_AUTHORIZATION")
    if authorization:
        yield AUTHORIZATION, authorization


class Owners:
    """Remembers which user a key belongs to, so that an authenticated request needs one store round trip.

    Bounded; the oldest entry goes first. Of the keys it keeps hashes: they are secrets, and where the session is the cookie they are
    thousands of characters long. Safe to share between threads.
    """

    def __init__(self, size: int = MAX_REMEMBERED_OWNERS) -> None:
        self._size = size
        self._owners: dict[bytes, str] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """Make the lock anew. In a forked child another thread of the parent's may hold it for ever."""
        self._lock = threading.Lock()  # protects eviction against a concurrent change of the dictionary's order

    def get(self, key: str | None) -> str | None:
        return self._owners.get(_hashed(key)) if key else None

    def remember(self, key: str, user_id: str) -> None:
        hashed = _hashed(key)
        with self._lock:
            if len(self._owners) >= self._size and hashed not in self._owners:
                del self._owners[next(iter(self._owners))]
            self._owners[hashed] = user_id

    def forget(self, key: str | None) -> None:
        if key:
            with self._lock:
                self._owners.pop(_hashed(key), None)

    def clear(self) -> None:
        with self._lock:
            self._owners.clear()


class TokenOwners(Owners):
    """The same for Authorization headers, of which several users may have one, as behind a gateway or in front of a test site.

    Once a process has seen two of them come with it, it takes nobody for the owner.
    """

    def remember(self, key: str, user_id: str) -> None:
        known = self.get(key)
        super().remember(key, user_id if known in (None, user_id) else NOBODY)


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


session_owners = Owners()
"""By session key. Only signed-in sessions are remembered: Django gives a session a new key when somebody logs in, so an owner never
changes, while an anonymous session may yet get one."""

token_owners = TokenOwners()
"""By Authorization header. A guess, which saves a round trip: whom the view resolves takes its place."""

after_fork(session_owners.renew_lock)
after_fork(token_owners.renew_lock)


class RequestIdentities:
    """The identities of one request, found as late and as cheaply as possible."""

    def __init__(
        self, request: HttpRequest, identify: Callable[[HttpRequest], Iterable[Identity]], carried: Callable[[], dict[str, Bound]]
    ):
        self._request = request
        self._identify = identify
        self._read_carried = carried
        self._carried: dict[str, Bound] | None = None
        self._known: tuple[Identity, ...] | None = None
        self._guessed: tuple[Identity, ...] = ()
        """Who came with the token before. Not to be bound by what somebody else writes with it."""
        self._added: tuple[Identity, ...] = ()
        self._has_looked = False
        self._is_made_up = False
        """No session had the key that came with the request."""
        self._is_there = True
        """There is a session now, as far as that was looked at."""
        self._token: str | None = request.META.get("HTTP_AUTHORIZATION")
        self._resolved: Identity | None = None
        """The user who is on the request."""
        self._asking: int | None = None
        """The thread that looks who that is."""

    def known(self) -> tuple[Identity, ...]:
        if self._known is None:
            found = dict.fromkeys(self._identify(self._request))
            session_key = self._request.COOKIES.get(settings.SESSION_COOKIE_NAME)
            owner = session_owners.get(session_key)
            if owner is not None:
                found[(USER, owner)] = None
            guess = None if session_key else token_owners.get(self._token)
            if guess and self._resolved is None:
                self._guessed = ((USER, guess),)
            for identity in self._added:
                found.pop(identity, None)
            self._known = tuple(found)
        return self._known + self._guessed + self._added

    def asker(self) -> Asker:
        """Act for the user who is on the request by now, if anybody has put one there or asked for it. The look itself costs no query.

        A class that is not Django's may run one all the same: who it is cannot be asked for that.
        """
        thread = get_ident()
        if self._asking == thread:
            return BEING_FOUND
        self._asking = thread
        try:
            return self._find_asker()
        finally:
            self._asking = None

    def _find_asker(self) -> Asker:
        attributes = vars(self._request)
        user = found = attributes.get("user")
        if isinstance(user, LazyObject):
            asker = Asker(attributes, user, _innermost(user))
            found = asker.found
        else:
            asker = Asker(attributes, user)
        # That of an anonymous one is None, and what a lazy one is before somebody asks has none.
        user_id = getattr(found, "pk", None)
        if user_id is not None:
            asker.identity = identity = (USER, str(user_id))
            if identity != self._resolved:
                self._resolved, self._guessed = identity, ()
                if identity not in self._added and identity not in (self._known or ()):
                    self._added = (*self._added, identity)
                if self._token and not self._cookie():
                    token_owners.remember(self._token, identity[1])
        return asker

    def revealed(self) -> tuple[Identity, ...]:
        known = self.known()
        # Without a call: every request that reads asks this.
        if not self._request.COOKIES.get(settings.SESSION_COOKIE_NAME) or self._has_looked or USER in dict(known):
            return known
        self._look_at_session()
        return self.known()

    def is_settled(self) -> bool:
        """Say whether the session can be looked at, if there is one."""
        return hasattr(self._request, "session") or not self._cookie()

    def is_complete(self) -> bool:
        """Say also whether a view has resolved its token's user."""
        return self.is_settled() and (self._resolved is not None or not self._token)

    def to_bind(self) -> tuple[Identity, ...]:
        """Return the identities at the end of the request: a login, logout or flush has changed the session's key by then."""
        self.asker()
        cookie, session = self._cookie(), getattr(self._request, "session", None)
        if getattr(session, "session_key", None) != cookie:
            session_owners.forget(cookie)
        session_key = self._session_key()
        if session_key is not None:
            self.add(SESSION, session_key)
        made_up = (SESSION, cookie) if self._is_made_up or not _can_be_key(session, cookie) else None
        return tuple(identity for identity in self.known() if identity != made_up)

    def ended(self) -> tuple[Identity, ...]:
        """Return the session that has ended with this request. One that never was looks the same: nothing was written to end it."""
        cookie, session = self._cookie(), getattr(self._request, "session", None)
        return ((SESSION, cookie),) if cookie and session is not None and session.session_key is None else ()

    def acts_for_somebody(self) -> bool:
        # Whoever was added was found: a user, or what the site's own code says by `stick()`.
        self.asker()
        return bool(self._added) or USER in dict(self.known()) or self._session_key() is not None

    def carried(self, primary: str) -> Bound:
        if self._carried is None:
            self._carried = self._read_carried()
        return self._carried.get(primary, UNBOUND)

    def add(self, kind: str, value: str) -> None:
        """Bind one more identity, from now on."""
        if (kind, value) not in self.known():
            self._added = (*self._added, (kind, value))

    def _cookie(self) -> str | None:
        return self._request.COOKIES.get(settings.SESSION_COOKIE_NAME)

    def _session_key(self) -> str | None:
        """Return the key of the session, if there is one. One that was not loaded is looked at, unless its owner is remembered."""
        session = getattr(self._request, "session", None)
        if session is None:
            return None
        # One that was loaded can be looked at for nothing; it may have changed hands, or turned out not to be there.
        is_open_question = session.session_key and not (self._has_looked or session_owners.get(session.session_key))
        if "_session_cache" in vars(session) or is_open_question:
            self._look_at_session()
        key: str | None = session.session_key
        return key if self._is_there else None

    def _look_at_session(self) -> None:
        session = getattr(self._request, "session", None)
        if session is None:
            return
        user_id, is_unknown = _owner_of(session)
        self._has_looked, self._is_there, self._is_made_up = True, not is_unknown, self._is_made_up or is_unknown
        if user_id is not None:
            self.add(USER, user_id)
            if session.session_key:
                session_owners.remember(session.session_key, user_id)


def _innermost(user: LazyObject[Any]) -> Mapping[str, object]:
    """Return the attributes of what `user` has turned out to be, as far as that is lazy again; of itself before anybody has asked."""
    while True:
        # Its own way to them is a detour through Python.
        attributes: Mapping[str, object] = object.__getattribute__(user, "__dict__")
        found = attributes[FOUND]
        if not isinstance(found, LazyObject):
            return attributes
        user = found


def _owner_of(session: Any) -> tuple[str | None, bool]:
    """Return the id of the user whose session it is, if it has one, and whether there is no such session."""
    # Looking is not using: a session marked as accessed would add `Vary: Cookie` to the response, and one that was found to be unknown
    # would have its cookie deleted, by a page that has nothing to do with it.
    accessed, modified, session_key = session.accessed, session.modified, session.session_key
    was_loaded = "_session_cache" in vars(session)
    try:
        with glancing() if _can_be_read_again(session) else nullcontext() as glance:
            user_id = session.get(SESSION_KEY)
    except DataError:
        # No row can have such a key, as one with a NUL. Whoever uses the session is told so by the database.
        return None, True
    finally:
        session.accessed = accessed
    was_found_unknown = not was_loaded and (session.session_key, session.modified) != (session_key, modified)
    is_unknown = was_found_unknown or (was_loaded and _is_unknown(session))
    if was_found_unknown:
        session._session_key, session.modified = session_key, modified
    # What the owner has seen is known only now. Who uses the session reads it again, bound by that.
    if was_found_unknown or (glance is not None and glance.saw_something):
        del session._session_cache
    return None if user_id is None else str(user_id), is_unknown


def _can_be_key(session: Any, key: str | None) -> bool:
    """Say whether a session may have `key`. One that is too short is not even looked for."""
    is_valid = getattr(session, "_validate_session_key", None)
    return is_valid is None or bool(is_valid(key))


def _is_unknown(session: Any) -> bool:
    """Say whether a session that was loaded turned out not to be there, and nobody has changed it since."""
    if type(session).__module__ == SESSIONS_IN_COOKIES:
        return not session._session_cache
    return session.session_key is None and not session.modified


def _can_be_read_again(session: Any) -> bool:
    """Say whether a session that was loaded and let go of comes from the database again: a cache would give back what was let go of."""
    return getattr(getattr(type(session), "load", None), "__module__", None) == SESSIONS_IN_ROWS
