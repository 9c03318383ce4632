"""Keys that rotate: each is for a purpose, seals or signs, and is named in what it made.

The opaque session mode needs no key at all; this is for what travels or lies outside the store (sealed tokens, the
console's links). AEAD comes from the `cryptography` library.

| state | seals, signs | opens, verifies | |
|---|---|---|---|
| pending | no | no | listed, but trusted by nobody yet |
| active | the newest | yes | |
| expired | no | yes | so that nobody is logged out by a rotation |
| revoked | no | no | it leaked |

A rotation in three steps, each deployed everywhere before the next begins: add the new key after the old one as
`expired` (all nodes open with it), make it `active` (it is now the newest: all nodes seal with it), make the old one
`expired`. A key's id goes into everything derived from it, so what one key made cannot be passed off as another's.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import ConfigError
from .model import Entropy

State = Literal["pending", "active", "expired", "revoked"]

_KID = re.compile(r"[A-Za-z0-9_-]{1,32}").fullmatch
_KNOWN = ("changeme", "change-me", "secret", "password", "example", "insecure", "development", "test-key")


class Key(msgspec.Struct, frozen=True):
    """A master key of 32 bytes or more; it is never used itself, only what is derived from it."""

    kid: str
    secret: bytes
    state: State = "active"

    def check(self) -> None:
        """Raise ConfigError for a key that is empty, short, guessable or a known sample."""
        text = self.secret.lower()
        if not _KID(self.kid):
            problem = "its id must be 1 to 32 letters, digits, - or _"
        elif len(self.secret) < 32:
            problem = f"it has {len(self.secret)} bytes, at least 32 random ones are needed (openssl rand -base64 32)"
        elif _regular(self.secret) or any(word.encode() in text for word in _KNOWN):
            problem = "it looks like a sample, not like random bytes (openssl rand -base64 32)"
        else:
            return
        message = f"key {self.kid!r}: {problem}"
        raise ConfigError(message)

    def __repr__(self) -> str:
        """Show the id only."""
        return f"Key({self.kid!r}, {self.state})"

    __str__ = __repr__


def _regular(secret: bytes) -> bool:
    """Tell whether a secret repeats itself, counts, or has hardly any different bytes: nothing random does."""
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    return len(set(secret)) < 8 or len(steps) < 8 or secret in (secret + secret)[1:-1]


class Keyring:
    """Keys by id; `seal` and `sign` use the newest active one, `open` and `verify` the one that is named."""

    __slots__ = ("_entropy", "_keys")

    def __init__(self, keys: Iterable[Key], entropy: Entropy) -> None:
        """Take keys, oldest first; raise ConfigError for a weak one or none that is active."""
        self._entropy = entropy
        self._keys: dict[str, Key] = {}
        for key in keys:
            key.check()
            if key.kid in self._keys:
                message = f"two keys are named {key.kid!r}"
                raise ConfigError(message)
            if any(hmac.compare_digest(key.secret, other.secret) for other in self._keys.values()):
                message = f"key {key.kid!r} has the secret of an older key; a rotation needs a new secret"
                raise ConfigError(message)
            self._keys[key.kid] = key
        if not any(key.state == "active" for key in self._keys.values()):
            message = "the keyring has no active key; add one"
            raise ConfigError(message)

    @property
    def newest(self) -> Key:
        """The key that works now."""
        return [key for key in self._keys.values() if key.state == "active"][-1]

    def seal(self, purpose: str, plain: bytes, context: bytes) -> bytes:
        """Return `kid.nonce+ciphertext`: secret, and bound to purpose and context (AES-256-GCM)."""
        key = self.newest
        nonce = self._entropy(12)
        return (
            key.kid.encode()
            + b"."
            + nonce
            + _aead(key.secret, _info(key, "seal", purpose)).encrypt(nonce, plain, context)
        )

    def open(self, purpose: str, sealed: bytes, context: bytes) -> bytes | None:
        """Return what was sealed, or None: not ours, another purpose or context, or a refused key."""
        key, body = self._named(sealed)
        if key is None or len(body) < 28:
            return None
        try:
            return _aead(key.secret, _info(key, "seal", purpose)).decrypt(body[:12], body[12:], context)
        except InvalidTag:
            return None

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Return `kid.mac` over the message (HMAC-SHA256)."""
        key = self.newest
        return key.kid.encode() + b"." + hmac.digest(_derived(key, "sign", purpose), message, "sha256")

    def verify(self, purpose: str, message: bytes, signature: bytes) -> bool:
        """Tell whether `sign` made this signature for this purpose and message."""
        key, mac = self._named(signature)
        if key is None:
            return False
        return hmac.compare_digest(mac, hmac.digest(_derived(key, "sign", purpose), message, "sha256"))

    def _named(self, made: bytes) -> tuple[Key | None, bytes]:
        kid, _, body = made.partition(b".")
        key = self._keys.get(kid.decode("latin-1"))
        if key is None or key.state in ("pending", "revoked"):
            return None, b""
        return key, body


@lru_cache(maxsize=1024)  # one session's cookies are opened and sealed again and again
def _aead(secret: bytes, info: bytes) -> AESGCM:
    return AESGCM(_expanded(secret, info))


def _derived(key: Key, act: str, purpose: str) -> bytes:
    return _expanded(key.secret, _info(key, act, purpose))


def _info(key: Key, act: str, purpose: str) -> bytes:
    return f"coatcheck/{act}/1\0{key.kid}\0{purpose}".encode()


def _expanded(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-Expand with SHA-256: its first block is one HMAC (RFC 5869 section 2.3)."""
    return hmac.digest(secret, info + b"\x01", "sha256")
