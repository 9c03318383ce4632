"""What several libraries have in common: how values are signed, packed and written, and what is never read: pickle."""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final, TypeAlias

import msgspec

from ..core.errors import ConfigError, DataError

Secrets: TypeAlias = str | bytes | Sequence[str | bytes]

MOST_INFLATED: Final = 1 << 20
"""Bytes above which a compressed session is none: a cookie of 4 KiB may spell 4 MiB."""

PICKLED: Final = (
    "it is pickled, and unpickling can run what it reads, so it is not read; have the old application write JSON or "
    "msgpack for a while before the change (docs/coming-from.md)"
)


class Signatures:
    """Checks what itsdangerous signed, or Django, which signs by the same arithmetic."""

    def __init__(
        self, secrets: Secrets, *, salt: bytes, derivation: str, digest: Any = sha1, separator: bytes = b"."
    ) -> None:
        """Take every secret that the old application accepts."""
        try:
            from itsdangerous import Signer
        except ImportError as error:
            message = "signed cookies of other libraries need itsdangerous; pip install 'coatcheck[legacy]'"
            raise ConfigError(message) from error
        given = [secrets] if isinstance(secrets, str | bytes) else list(secrets)
        keys = [key.encode() if isinstance(key, str) else key for key in given]
        if not keys or not all(keys):
            message = "the secret key of the old application is needed to check what it signed (found an empty one)"
            raise ConfigError(message)
        self._separator = separator
        self._signer = Signer(keys, salt=salt, sep=separator, key_derivation=derivation, digest_method=digest)

    def checked(self, value: bytes) -> tuple[bytes, bytes] | None:
        """Return what was signed and the secret by which the token is known; None: not signed by these keys.

        The secret holds the signature decoded: lenient base64 gives it several spellings, and each would be new.
        """
        from itsdangerous import BadSignature
        from itsdangerous.encoding import base64_decode

        try:
            signed: bytes = self._signer.unsign(value)
            signature = base64_decode(value.rpartition(self._separator)[2])
        except BadSignature:
            return None
        return signed, b"signed\0" + signature + signed


def stamped(signed: bytes) -> tuple[bytes, float] | None:
    """Return the payload of a time-stamped value of itsdangerous, and when it was signed."""
    payload, _, stamp = signed.rpartition(b".")
    raw = unbased(stamp)
    return (payload, float(int.from_bytes(raw, "big"))) if raw and len(raw) <= 8 else None


def unbased(text: bytes) -> bytes | None:
    """Return what base64 spells, in the alphabet of URLs, without padding."""
    try:
        return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except (NotBase64, ValueError):
        return None


def unpacked(payload: bytes) -> bytes | None:
    """Return what a payload spells: base64, compressed if it begins with a full stop."""
    raw = unbased(payload.removeprefix(b"."))
    if raw is None or not payload.startswith(b"."):
        return raw
    inflating = zlib.decompressobj()
    try:
        inflated = inflating.decompress(raw, MOST_INFLATED)
    except zlib.error:
        return None
    return inflated if inflating.eof else None


def mapping(raw: bytes) -> dict[str, Any] | None:
    """Return the session that JSON spells; None: it spells none. Raises DataError for a pickle."""
    refuse_pickle(raw)
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def msgpacked(raw: bytes) -> dict[str, Any] | None:
    """Return the session that msgpack or JSON spells; None: neither. Raises DataError for a pickle."""
    if raw[:1] == b"{":
        return mapping(raw)
    try:
        found = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and all(isinstance(key, str) for key in found):
        return found
    refuse_pickle(raw)
    return None


def refuse_pickle(raw: bytes) -> None:
    """Raise DataError for what begins, or ends, as a pickle does."""
    if (raw[:1] == b"\x80" and raw[1:2] in b"\x02\x03\x04\x05") or (
        raw[:2] in (b"(d", b"}q", b"c_") and raw[-1:] == b"."
    ):
        raise DataError(PICKLED, found="pickle")
