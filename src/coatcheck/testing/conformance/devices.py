"""A browser's half of device binding: a key that does not leave this object, and what it signs (docs/dbsc.md)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ..browser import Browser, Received
from .site import ORIGIN, Site

REGISTER, REFRESH = "/coatcheck/device/register", "/coatcheck/device/refresh"


class Device:
    """A browser that binds its sessions, as Chromium does."""

    def __init__(self, site: Site, user: str = "alice") -> None:
        """Log in, and keep the offer that comes with the answer."""
        self.browser: Browser = site.browser()
        self.bound_cookie = f"{site.cookie}-b"
        self.name = self.challenge = ""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.offer = self.browser.login(user).header("secure-session-registration") or ""

    def bind(self) -> Device:
        """Register the key and come back once: from then on the session is bound."""
        proof = self.proof(self.offered("challenge"), authorization=self.offered("authorization"), register=True)
        answer = self._send(REGISTER, {"secure-session-response": proof})
        assert answer.status == 200, f"the registration was answered with {answer.status}: {answer.text:.200}"
        self.name = answer.json()["session_identifier"]
        assert self.browser.get("/me").status == 200, "a session that was just bound is nobody's"
        return self

    def refresh(self) -> Received:
        """Prove the key again: with the challenge at hand, and anew where another one is asked for."""
        answer = self._refresh()
        return self._refresh() if answer.status == 403 else answer

    def proof(
        self,
        challenge: str,
        *,
        register: bool = False,
        header: dict[str, Any] | None = None,
        sign: Callable[[bytes], bytes] | None = None,
        **claims: str | None,
    ) -> str:
        """Return a proof for a challenge; a registration brings the key with it.

        `header` is laid on the header, claims on the claims (None leaves one out), and `sign` signs in the key's place.
        """
        said: dict[str, Any] = {"alg": "ES256", "typ": "dbsc+jwt", **({"jwk": self.jwk} if register else {})}
        parts = ({**said, **(header or {})}, {"jti": challenge, **claims})
        told = [{name: value for name, value in part.items() if value is not None} for part in parts]
        signed = ".".join(text_of(json.dumps(part).encode()) for part in told)
        return f"{signed}.{text_of((sign or self.signed)(signed.encode()))}"

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, as it travels."""
        numbers = self._key.public_key().public_numbers()
        return {"crv": "P-256", "kty": "EC", "x": _number(numbers.x), "y": _number(numbers.y)}

    @property
    def private_jwk(self) -> dict[str, str]:
        """The key as it must never travel."""
        return {**self.jwk, "d": _number(self._key.private_numbers().private_value)}

    def signed(self, text: bytes) -> bytes:
        """Return the signature over a text, r and s (RFC 7518 section 3.4)."""
        r, s = decode_dss_signature(self.signed_in_der(text))
        return r.to_bytes(32) + s.to_bytes(32)

    def signed_in_der(self, text: bytes) -> bytes:
        """Return the signature over a text, as certificates have it and a proof has not."""
        return self._key.sign(text, ec.ECDSA(SHA256()))

    def _refresh(self) -> Received:
        said = {"secure-session-response": self.proof(self.challenge)} if self.challenge else {}
        return self._send(REFRESH, {"sec-secure-session-id": self.name, **said})

    def _send(self, path: str, headers: dict[str, str]) -> Received:
        answer = self.browser.post(path, headers={"sec-fetch-mode": "no-cors", **headers}, origin=ORIGIN)
        asked = re.match(r'"([^"]+)"', answer.header("secure-session-challenge") or "")
        self.challenge = asked[1] if asked else self.challenge
        return answer

    def offered(self, part: str) -> str:
        """Return a part of the offer."""
        found = re.search(rf'{part}="([^"]*)"', self.offer)
        assert found, f"the login offers no {part}: {self.offer!r}"
        return found[1]


@cache
def rsa_signer(bits: int) -> tuple[Callable[[bytes], bytes], dict[str, str]]:
    """Return what signs by an RSA key of so many bits (RS256), and the public key; made when first asked for."""
    key = rsa.generate_private_key(65537, bits)
    modulus = text_of(key.public_key().public_numbers().n.to_bytes(bits // 8))

    def sign(text: bytes) -> bytes:
        return key.sign(text, padding.PKCS1v15(), SHA256())

    return sign, {"e": "AQAB", "kty": "RSA", "n": modulus}


def text_of(raw: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int) -> str:
    return text_of(value.to_bytes(32))
