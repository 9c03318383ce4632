"""Litestar: JSON sealed by AES-GCM in a cookie (in pieces, if it is long), or an identifier and JSON in a store."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from datetime import datetime
from typing import Any, Final

from ..core.cookies import CookieWriter
from ..core.errors import ConfigError
from ..core.legacy import AS_SET, Old, OldCookie, Shown, Source, Subject, unquoted
from ..core.model import Instant
from .reading import mapping
from .shelved import Shelved
from .shelves import Shelf

AGE: Final = 14 * 86400.0
_NONCE: Final = 12
_AAD: Final = b"additional_authenticated_data="
_MOST_PIECES: Final = 8
"""More than fit into a header that is read at all."""


class LitestarCookie(Source):
    """The encrypted cookies of Litestar's CookieBackendConfig."""

    library = "litestar-cookie"

    def __init__(
        self,
        secret: bytes,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        max_age: float = AGE,
        attributes: OldCookie = AS_SET,
    ) -> None:
        """Take what the configuration had: secret, key, max_age, and the cookie's attributes."""
        super().__init__(cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=max_age)
        if len(secret) not in (16, 24, 32):
            message = f"Litestar's secret has 16, 24 or 32 bytes (found {len(secret)})"
            raise ConfigError(message)
        self._secret = secret
        names = (cookie, *(f"{cookie}-{number}" for number in range(_MOST_PIECES)))
        self._pieces: tuple[CookieWriter, ...] = tuple(self._writer_of(name) for name in names)
        self._named = re.compile(rb"(?:^|;)[ \t]*%b(?:-\d+)?=" % re.escape(cookie.encode())).search

    def shown(self, header: bytes, now: Instant) -> Shown | None:
        """Return the session in the pieces of the cookie, put together."""
        if self._named(header) is None:
            return None
        values = [writer.find(header) for writer in self._pieces]
        if not all(value is None or isinstance(value, bytes) for value in values):
            return None
        value = b"".join(unquoted(value) for value in values if isinstance(value, bytes))
        return self.read(value, now) if value else None

    def read(self, value: bytes, now: Instant) -> Shown | None:
        """Return the session in a sealed value: nonce, ciphertext, and behind a mark what was sealed with it."""
        try:
            raw = b64decode(value, validate=True)
        except (NotBase64, ValueError):
            return None
        sealed, mark, context = raw.partition(_AAD)
        about = mapping(context) if mark and b64encode(raw) == value else None
        ends_at = None if about is None else about.get("expires_at")
        if not isinstance(ends_at, int) or now >= ends_at or len(sealed) <= _NONCE:
            return None
        plain = self._opened(sealed, context)
        data = None if plain is None else mapping(plain)
        if data is None:
            return None
        old = Old(data, ends_at - (self._lifetime or AGE), float(ends_at), persistent=True)
        return Shown(b"sealed\0" + raw, old)

    def clears(self, header: bytes) -> tuple[bytes, ...]:
        """Return what takes every piece away that came."""
        if self._named(header) is None:
            return ()
        return tuple(writer.clear() for writer in self._pieces if writer.find(header) is not None)

    def _opened(self, sealed: bytes, context: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            plain: bytes = AESGCM(self._secret).decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
        except (InvalidTag, ValueError):
            return None
        return plain


class LitestarStore(Shelved):
    """The sessions of Litestar's ServerSideSessionConfig.

    Redis: `RedisShelf(url, prefix="LITESTAR:")` (the namespace). Files: `LitestarFolder(path)`.
    """

    library = "litestar"

    def __init__(
        self,
        shelf: Shelf,
        *,
        until: datetime,
        subject: Subject = None,
        cookie: str = "session",
        max_age: float = AGE,
        attributes: OldCookie = AS_SET,
        moved: bool = False,
    ) -> None:
        """Take where they lie, and what the configuration had: key, max_age, and the cookie's attributes."""
        super().__init__(
            shelf, cookie=cookie, subject=subject, until=until, attributes=attributes, lifetime=max_age, moved=moved
        )

    def fetch(self, key: str, now: Instant) -> Old | None:
        """Return a session; it was issued when it was last written, its greatest age before its end."""
        kept = self._shelf.get(key)
        data: dict[str, Any] | None = None if kept is None else mapping(kept.raw)
        if kept is None or data is None:
            return None
        age = self._lifetime or AGE
        left = age if kept.left is None else kept.left
        return Old(data, now - age if kept.left is None else now + left - age, now + left, persistent=True)
