"""Session data at rest: plain, as the codec wrote it, or sealed with a key that only the session's cookie holds.

Rules (docs/why/keys.md)
- The key is made of `family`, of which the store keeps a hash only: the same over renewals and their grace, another one
  with every new handle.
- What is sealed begins with a version of its own, so whoever lacks the key reads "unknown version", never garbage.
- Both kinds are always read, the setting decides what is written: it may be switched on and off under live sessions.
- No data stays no bytes.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

from .codec import SEALED, UnknownVersion
from .model import Entropy, Ticket

_NONCE: Final = 12
_TAG: Final = 16


class Secrecy:
    """What lies between the encoded data of a session and the bytes that a store keeps of it."""

    __slots__ = ("_aead", "_entropy", "_on", "_realm")

    def __init__(self, realm: bytes, entropy: Entropy, *, on: bool) -> None:
        """Seal what is written if `on`; open what was sealed in any case."""
        self._realm, self._entropy, self._on = realm, entropy, on
        self._aead: Any = None
        if on:
            self._learn()

    def kept(self, ticket: Ticket, plain: bytes) -> bytes:
        """Return the bytes that a store may have of the data of this ticket's session."""
        if not self._on or not plain:
            return plain
        nonce = self._entropy(_NONCE)
        sealed: bytes = self._cipher(ticket).encrypt(nonce, plain, self._context(ticket))
        return SEALED + nonce + sealed

    def read(self, ticket: Ticket, stored: bytes) -> bytes:
        """Return the encoded data of this ticket's session; raise UnknownVersion for what was sealed for another."""
        if stored[:1] != SEALED:
            return stored
        (_, invalid), start = self._aead or self._learn(), 1 + _NONCE
        if len(stored) < start + _TAG:
            message = "cut off"
            raise UnknownVersion(message)
        try:
            plain: bytes = self._cipher(ticket).decrypt(stored[1:start], stored[start:], self._context(ticket))
        except invalid as error:
            message = "sealed for another session, or damaged"
            raise UnknownVersion(message) from error
        return plain

    def _learn(self) -> Any:
        """Import the cipher: a large part of the cost of importing everything, and most applications need none."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM, InvalidTag
        return self._aead

    def _cipher(self, ticket: Ticket) -> Any:
        # no key in a local variable: error trackers send those of every frame
        return self._aead[0](data_key(self._realm, ticket))

    def _context(self, ticket: Ticket) -> bytes:
        return b"%b\0%b\0%b" % (self._realm, ticket.handle.encode("ascii"), SEALED)


def data_key(realm: bytes, ticket: Ticket) -> bytes:
    """Return the key of a session's data at rest."""
    message = b"coatcheck/data/1\0%b\0%b" % (realm, ticket.handle.encode("ascii"))
    return hmac.digest(ticket.family, message, "sha256")
