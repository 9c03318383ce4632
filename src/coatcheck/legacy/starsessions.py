"""starsessions: an identifier in the cookie and JSON in Redis, or JSON in a signed cookie; with its own metadata.

A session counts from its creation, which the metadata tells; without metadata it is none.
"""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any

from ..core.legacy import AS_SET, Old, OldCookie, Subject
from ..core.model import Instant
from .reading import Secrets, mapping
from .shelved import Shelved
from .shelves import Shelf
from .starlette import StarletteCookie

METADATA = "__metadata__"


class StarsessionsStore(Shelved):
    """The sessions of a starsessions store; Redis: `RedisShelf(url, prefix="starsessions.")`."""

    library = "starsessions"

    def __init__(
        self,
        shelf: Shelf,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        attributes: OldCookie = AS_SET,
        moved: bool = False,
    ) -> None:
        """Take where they lie, and what the middleware was given: cookie_name and the cookie's attributes."""
        super().__init__(
            shelf, cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=None, moved=moved
        )

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return a session with its metadata."""
        kept = self._shelf.get(key)
        data = None if kept is None or not kept.raw else mapping(kept.raw)
        if kept is None or data is None:
            return None
        return old_of(data, inf if kept.left is None else now + kept.left)


class StarsessionsCookie(StarletteCookie):
    """The sessions of starsessions' CookieStore."""

    library = "starsessions-cookie"

    def __init__(
        self,
        secret_key: Secrets,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        lifetime: float | None = None,
        attributes: OldCookie = AS_SET,
    ) -> None:
        """Take the store's secret_key and what the middleware was given; no lifetime: cookies that browsers forget."""
        super().__init__(
            secret_key, until=until, subject=subject, cookie=cookie, max_age=lifetime, attributes=attributes
        )

    def _old(self, data: dict[str, Any], issued_at: Instant) -> Old | None:
        return old_of(data, issued_at + (self._lifetime or inf))


def old_of(data: dict[str, Any], ends_at: Instant) -> Old | None:
    """Return a session from its data with metadata."""
    about = data.pop(METADATA, None)
    created = about.get("created") if isinstance(about, dict) else None
    if not isinstance(created, int | float):
        return None
    return Old(data, float(created), ends_at, persistent=bool(about.get("lifetime")))
