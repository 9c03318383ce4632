"""A browser's half of device binding: a key that does not leave this object, and what it signs (docs/dbsc.md)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
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
        proof = self.proof(self._offered("challenge"), authorization=self._offered("authorization"), register=True)
        answer = self._send(REGISTER, {"secure-session-response": proof})
        assert answer.status == 200, f"the registration was answered with {answer.status}: {answer.text:.200}"
        self.name = answer.json()["session_identifier"]
        assert self.browser.get("/me").status == 200, "a session that was just bound is nobody's"
        return self

    def refresh(self) -> Received:
        """Prove the key again: with the challenge at hand, and anew where another one is asked for."""
        answer = self._refresh()
        return self._refresh() if answer.status == 403 else answer

    def proof(self, challenge: str, *, register: bool = False, **claims: str) -> str:
        """Return a proof for a challenge; a registration brings the key with it."""
        header: dict[str, Any] = {"alg": "ES256", "typ": "dbsc+jwt"}
        if register:
            numbers = self._key.public_key().public_numbers()
            x, y = (_text(number.to_bytes(32)) for number in (numbers.x, numbers.y))
            header["jwk"] = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        signed = f"{_text(json.dumps(header).encode())}.{_text(json.dumps({'jti': challenge, **claims}).encode())}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_text(r.to_bytes(32) + s.to_bytes(32))}"

    def _refresh(self) -> Received:
        said = {"secure-session-response": self.proof(self.challenge)} if self.challenge else {}
        return self._send(REFRESH, {"sec-secure-session-id": self.name, **said})

    def _send(self, path: str, headers: dict[str, str]) -> Received:
        answer = self.browser.post(path, headers={"sec-fetch-mode": "no-cors", **headers}, origin=ORIGIN)
        asked = re.match(r'"([^"]+)"', answer.header("secure-session-challenge") or "")
        self.challenge = asked[1] if asked else self.challenge
        return answer

    def _offered(self, part: str) -> str:
        found = re.search(rf'{part}="([^"]*)"', self.offer)
        assert found, f"the login offers no {part}: {self.offer!r}"
        return found[1]


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
