"""Flask-Session: an identifier in the cookie, the data in Redis, a SQL table or cachelib's folder.

What its serializers write (msgpack, JSON) is read; what cachelib pickles is not.
"""

from __future__ import annotations

from datetime import datetime

from ..core.legacy import AS_SET, Old, OldCookie, Shown, Subject
from ..core.model import Instant
from .flask import LIFETIME, old_of
from .reading import Secrets, Signatures, msgpacked
from .shelved import Shelved
from .shelves import Shelf


class FlaskSession(Shelved):
    """The server-side sessions of a Flask application.

    Redis: `RedisShelf(url, prefix="session:")`. SQLAlchemy: `Table(url, "sessions", key="session_id", data="data",
    ends="expiry", prefix="session:")`. cachelib: `CachelibFolder(path, prefix="session:")`.
    """

    library = "flask-session"

    def __init__(
        self,
        shelf: Shelf,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        lifetime: float = LIFETIME,
        signed_by: Secrets = (),
        attributes: OldCookie = AS_SET,
        moved: bool = False,
    ) -> None:
        """Take where they lie, SESSION_COOKIE_NAME, PERMANENT_SESSION_LIFETIME in seconds.

        `signed_by`: the secret key, where SESSION_USE_SIGNER was on. `moved`: see `Source`.
        """
        super().__init__(
            shelf,
            cookie=cookie,
            subject=subject,
            until=until,
            attributes=attributes,
            lifetime=lifetime,
            moved=moved,
        )
        self._signatures = Signatures(signed_by, salt=b"flask-session", derivation="hmac") if signed_by else None

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the identifier."""
        if self._signatures is not None:
            checked = self._signatures.checked(value)
            if checked is None:
                return None
            value = checked[0]
        return super().read(value, now)

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return a session; it was issued when it was last written, a lifetime before its end."""
        kept = self._shelf.get(key)
        data = None if kept is None else msgpacked(kept.raw)
        if kept is None or data is None:
            return None
        lifetime = self._lifetime or LIFETIME
        ends_at = now + (lifetime if kept.left is None else kept.left)
        return old_of(data, ends_at - lifetime if kept.left is not None else now - lifetime, ends_at)
