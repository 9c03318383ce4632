"""Keys that rotate: each is for a purpose, seals or signs, and is named in what it made.

The opaque session mode needs no key at all; this is for what travels or lies outside the store (sealed tokens, the
console's links). AEAD comes from the `cryptography` library.

| state | seals, signs | opens, verifies | |
|---|---|---|---|
| pending | no | yes | nodes whose clock or deployment is ahead seal with it already |
| active | the newest | yes | |
| expired | no | yes | so that nobody is logged out by a rotation |
| revoked | no | no | it leaked |

A rotation by hand in two steps, the first deployed everywhere before the second begins: add the new key after the old
one as `pending` (all nodes open with it), then make it `active` and the old one `expired`. Keys in a store rotate by
themselves (core/rotation.py). A key's id goes into everything derived from it, so what one key made cannot be passed
off as another's.
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

from .errors import ConfigError, StoreError
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
        problem = weakness(self.secret) if _KID(self.kid) else "its id must be 1 to 32 letters, digits, - or _"
        if problem is not None:
            message = f"key {self.kid!r}: {problem}"
            raise ConfigError(message)

    def __repr__(self) -> str:
        """Show the id only."""
        return f"Key({self.kid!r}, {self.state})"

    __str__ = __repr__


def weakness(secret: bytes) -> str | None:
    """Return what is wrong with a secret, without showing it, or None."""
    text = secret.lower()
    if len(secret) < 32:
        return f"it has {len(secret)} bytes, at least 32 random ones are needed (openssl rand -base64 32)"
    if _regular(secret) or any(word.encode() in text for word in _KNOWN):
        return "it looks like a sample, not like random bytes (openssl rand -base64 32)"
    return None


def _regular(secret: bytes) -> bool:
    """Tell whether a secret repeats itself, counts, or has hardly any different bytes: nothing random does."""
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    return len(set(secret)) < 8 or len(steps) < 8 or secret in (secret + secret)[1:-1]


class Keyring:
    """Keys by id; `seal` and `sign` use the newest active one, `open` and `verify` the one that is named."""

    __slots__ = ("_entropy", "_keys", "_newest")

    def __init__(self, keys: Iterable[Key], entropy: Entropy) -> None:
        """Take keys, oldest first; raise ConfigError for a weak one or none that is active."""
        self._entropy = entropy
        self.replace(keys)

    @classmethod
    def unread(cls, entropy: Entropy) -> Keyring:
        """Return a ring whose keys come later; until they are here, all it does is to raise StoreError."""
        ring = cls.__new__(cls)
        ring._entropy, ring._keys = entropy, {}  # noqa: SLF001 - it is one of ours
        return ring

    def replace(self, keys: Iterable[Key]) -> None:
        """Take other keys in place of all, in one step: threads that use the ring meet the old ones or the new ones."""
        found = _checked(keys)
        self._newest = [key for key in found.values() if key.state == "active"][-1]
        self._keys = found

    def forget(self) -> None:
        """Become unread again."""
        self._keys = {}

    @property
    def newest(self) -> Key:
        """The key that works now."""
        self._read()
        return self._newest

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
        key = self._read().get(kid.decode("latin-1"))
        if key is None or key.state == "revoked":
            return None, b""
        return key, body

    def _read(self) -> dict[str, Key]:
        """Return the keys; without any, nothing can be told of anything, and least of all that it is not ours."""
        if not self._keys:
            message = "the keys have not been read from their store; make sure that it answers"
            raise StoreError(message)
        return self._keys


def _checked(keys: Iterable[Key]) -> dict[str, Key]:
    """Return keys by id; raise ConfigError for a weak one, a repeated one, or none that is active."""
    found: dict[str, Key] = {}
    for key in keys:
        key.check()
        if key.kid in found:
            message = f"two keys are named {key.kid!r}"
            raise ConfigError(message)
        if any(hmac.compare_digest(key.secret, other.secret) for other in found.values()):
            message = f"key {key.kid!r} has the secret of an older key; a rotation needs a new secret"
            raise ConfigError(message)
        found[key.kid] = key
    if not any(key.state == "active" for key in found.values()):
        message = "the keyring has no active key; add one"
        raise ConfigError(message)
    return found


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
