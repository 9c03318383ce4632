"""Flask's own sessions: tagged JSON in a signed cookie with the time in it.

Flask forgets a cookie only when its browser does, or PERMANENT_SESSION_LIFETIME after it was last signed.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from ..core.legacy import AS_SET, Old, OldCookie, Shown, Source, Subject
from ..core.model import Instant
from .reading import Secrets, Signatures, mapping, stamped, unpacked

LIFETIME = 31 * 86400.0
PERMANENT = "_permanent"


class FlaskCookie(Source):
    """The signed cookies of a Flask application."""

    library = "flask"

    def __init__(
        self,
        secret_keys: Secrets,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        lifetime: float = LIFETIME,
        attributes: OldCookie = AS_SET,
    ) -> None:
        """Take SECRET_KEY (and SECRET_KEY_FALLBACKS), SESSION_COOKIE_NAME, PERMANENT_SESSION_LIFETIME in seconds.

        With Flask-Login, the subject is "_user_id".
        """
        super().__init__(cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=lifetime)
        self._signatures = Signatures(secret_keys, salt=b"cookie-session", derivation="hmac")

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the session in a signed value."""
        checked = self._signatures.checked(value)
        found = None if checked is None else stamped(checked[0])
        if checked is None or found is None:
            return None
        payload, issued_at = found
        raw = unpacked(payload)
        try:
            data = None if raw is None else mapping(raw)
            data = None if data is None else untagged(data)
        except (ValueError, TypeError):
            return None
        ends_at = issued_at + (self._lifetime or LIFETIME)
        if not isinstance(data, dict) or now > ends_at:
            return None
        return Shown(checked[1], old_of(data, issued_at, ends_at))


def old_of(data: dict[str, Any], issued_at: Instant, ends_at: Instant) -> Old:
    """Return a session of Flask's kind; one that holds nothing but how long it lasts is empty."""
    if data.keys() <= {PERMANENT}:
        data = {}
    return Old(data, issued_at, ends_at, persistent=bool(data.get(PERMANENT)))


_TAGS: dict[str, Callable[[Any], Any]] = {
    " di": lambda value: {key.removesuffix("__"): item for key, item in value.items()},
    " t": tuple,
    " b": b64decode,
    " m": str,
    " u": UUID,
    " d": parsedate_to_datetime,
}
"""Flask's TaggedJSONSerializer; what was Markup is text here."""


def untagged(value: Any) -> Any:
    """Return what Flask's tagged JSON means."""
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: untagged(item) for key, item in value.items()}
    if len(found) != 1:
        return found
    ((tag, item),) = found.items()
    restore = _TAGS.get(tag)
    return found if restore is None else restore(item)
