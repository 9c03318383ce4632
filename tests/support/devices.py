"""A browser's half of Device Bound Session Credentials, played by a test: a key, its proofs, and what it was told.

It signs as Chromium does (tests/core/dbsc-vectors.json has Chromium's own proofs), and can be asked to do it wrongly.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256


def encoded(raw: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return what base64url spells."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class DeviceKey:
    """A key that does not leave this object."""

    def __init__(self, alg: str = "ES256", bits: int = 2048) -> None:
        self.alg = alg
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else rsa.generate_private_key(65537, bits)
        )

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as it travels."""
        numbers = self.private.public_key().public_numbers()
        if self.alg == "ES256":
            x, y = (encoded(number.to_bytes(32)) for number in (numbers.x, numbers.y))
            return {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        return {"e": "AQAB", "kty": "RSA", "n": encoded(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8))}

    def sign(self, text: str, *, der: bool = False) -> bytes:
        """Return a signature over a text."""
        if self.alg == "RS256":
            signed: bytes = self.private.sign(text.encode(), padding.PKCS1v15(), SHA256())
            return signed
        signature: bytes = self.private.sign(text.encode(), ec.ECDSA(SHA256()))
        if der:
            return signature
        r, s = decode_dss_signature(signature)
        return r.to_bytes(32) + s.to_bytes(32)

    def proof(self, jti: str, /, *, register: bool = False, der: bool = False, **changes: Any) -> str:
        """Return a proof; `changes` are laid on header and claims, None takes a member away."""
        header: dict[str, Any] = {"alg": self.alg, "typ": "dbsc+jwt"} | ({"jwk": self.jwk} if register else {})
        claims: dict[str, Any] = {"jti": jti}
        for name, value in changes.items():
            part = header if name in ("alg", "typ", "jwk", "crit", "kid", "jku") else claims
            part[name] = value
        parts = [{name: value for name, value in part.items() if value is not None} for part in (header, claims)]
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{encoded(self.sign(text, der=der))}"
