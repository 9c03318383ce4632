"""Root secrets: what wraps the keys in a store. They come from outside, and are never stored.

Rules (docs/why/keys.md)
- AES-256-GCM over the whole of what is wrapped, bound to the name it lies under: nothing of it can be read, changed or
  moved by whoever only has the store. There is no unwrapped form.
- Two are accepted, the current one and the former; the current one wraps.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from .errors import ConfigError, StoreError
from .keyring import weakness
from .model import Entropy

_VERSION: Final = b"\x01"
_SIGN: Final = 8
_NONCE: Final = 12


class Roots:
    """The root secrets of an application: one, or the current one and the former."""

    __slots__ = ("_entropy", "_secrets")

    def __init__(self, secrets: Sequence[bytes], entropy: Entropy) -> None:
        """Take secrets of 32 random bytes or more, the current one first; raise ConfigError for a weak one."""
        if not 1 <= len(secrets) <= 2:
            message = f"there is one root secret, or the current one and the former (found {len(secrets)})"
            raise ConfigError(message)
        for name, secret in zip(("current", "former"), secrets, strict=False):
            problem = weakness(secret)
            if problem is not None:
                message = f"the {name} root secret: {problem}"
                raise ConfigError(message)
        if len(secrets) == 2 and hmac.compare_digest(*secrets):
            message = "the former root secret is the current one; give it once"
            raise ConfigError(message)
        self._entropy = entropy
        self._secrets = {_sign_of(secret): secret for secret in secrets}

    def wrap(self, name: str, plain: bytes) -> bytes:
        """Return `plain` wrapped by the current secret, to lie under `name`."""
        head = _VERSION + next(iter(self._secrets))
        nonce = self._entropy(_NONCE)
        return head + nonce + self._cipher(head).encrypt(nonce, plain, _context(name, head))

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """Return what was wrapped; raise ConfigError for another root's, StoreError for what was changed or moved."""
        head, nonce, rest = wrapped[: 1 + _SIGN], wrapped[1 + _SIGN :][:_NONCE], wrapped[1 + _SIGN + _NONCE :]
        if head[:1] != _VERSION:
            message = "the keys in the store are not of a kind that this coatcheck knows; upgrade it, or restore them"
            raise StoreError(message)
        if head[1:] not in self._secrets:
            message = (
                "the keys in the store are wrapped by a root secret that was not given; give the one that wrapped "
                "them, as the former if there is another one now"
            )
            raise ConfigError(message)
        try:
            return self._cipher(head).decrypt(nonce, rest, _context(name, head))
        except (InvalidTag, ValueError) as error:
            message = (
                "the keys in the store were changed by somebody who lacks the root secret; find out who can write "
                "there, and restore them from a backup"
            )
            raise StoreError(message) from error

    def sign(self, message: bytes) -> str:
        """Return the MAC of a message by the current secret, with what tells by which."""
        sign, secret = next(iter(self._secrets.items()))
        return f"{sign.hex()}.{_mac(secret, message)}"

    def signed(self, message: bytes, mac: str) -> bool:
        """Tell whether a MAC is one of these secrets', of this message."""
        made = [f"{sign.hex()}.{_mac(secret, message)}" for sign, secret in self._secrets.items()]
        return any(hmac.compare_digest(one.encode(), mac.encode("utf-8", "replace")) for one in made)

    def is_former(self, wrapped: bytes) -> bool:
        """Tell whether the former secret wrapped this."""
        return wrapped[1 : 1 + _SIGN] != next(iter(self._secrets))

    def _cipher(self, head: bytes) -> AESGCM:
        return AESGCM(_derived(self._secrets[head[1:]], b"coatcheck/wrap/1", 32))

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"<Roots: {len(self._secrets)}>"


def _sign_of(secret: bytes) -> bytes:
    """Return what tells a secret from others, and nothing else about it."""
    return _derived(secret, b"coatcheck/root/1", _SIGN)


def _mac(secret: bytes, message: bytes) -> str:
    return hmac.digest(_derived(secret, b"coatcheck/audit/1", 32), message, "sha256").hex()


def _context(name: str, head: bytes) -> bytes:
    return b"coatcheck/wrap/1\0%b\0%b" % (name.encode(), head)


def _derived(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(secret)
