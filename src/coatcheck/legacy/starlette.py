"""Starlette's SessionMiddleware (and FastAPI's, which is the same): JSON in a signed cookie with the time in it."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from datetime import datetime
from math import inf
from typing import Any

from ..core.legacy import AS_SET, Old, OldCookie, Shown, Source, Subject
from ..core.model import Instant
from .reading import Secrets, Signatures, mapping, stamped


class StarletteCookie(Source):
    """The signed cookies of Starlette's SessionMiddleware."""

    library = "starlette"

    def __init__(
        self,
        secret_key: Secrets,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        max_age: float | None = 14 * 86400.0,
        attributes: OldCookie = AS_SET,
    ) -> None:
        """Take what the middleware was given: secret_key, session_cookie, max_age, and the cookie's attributes."""
        super().__init__(cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=max_age)
        self._signatures = Signatures(secret_key, salt=b"itsdangerous.Signer", derivation="django-concat")

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the session in a signed value."""
        checked = self._signatures.checked(value)
        found = None if checked is None else stamped(checked[0])
        if checked is None or found is None:
            return None
        payload, issued_at = found
        try:
            data = mapping(b64decode(payload))
        except (NotBase64, ValueError):
            return None
        old = None if data is None else self._old(data, issued_at)
        return None if old is None or now > old.ends_at else Shown(checked[1], old)

    def _old(self, data: dict[str, Any], issued_at: Instant) -> Old | None:
        lasting = self._lifetime is not None
        return Old(data, issued_at, issued_at + (self._lifetime or inf), persistent=lasting)
