"""The twenty-five proofs of device binding that bind nothing, by name: each is right in all but what its name says.

A header that lies is signed as it lies: so it is the header that is refused, and not a signature that no longer fits.
Source: W3C Device Bound Session Credentials, "DBSC proof", as the negative vectors of a server.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from .devices import Device, rsa_signer, text_of

MOST_PROOF = 4096

NAMES = (
    *("no header", "two headers", "over 4 KiB", "two parts", "four parts", "padded base64", "a header that is no JSON"),
    *("typ JWT", "no typ", "alg none", "alg HS256", "an alg that was not offered", "no jwk", "a private jwk"),
    *("a jwk off the curve", "an RSA jwk of 1024 bits", "a flipped signature", "a signature in DER", "r = s = 0"),
    *("an unknown jti", "the jti of another session", "an expired jti", "a jti that was used"),
    *("no authorization, or another", "a jwk at the refresh"),
)
"""All twenty-five; the last five but two need a session's own story, and are told by the row itself."""


def registrations(device: Device, stranger: Device) -> dict[str, list[list[str]]]:
    """Return by name what must register nothing for a device: for each try, its Secure-Session-Response headers."""
    challenge, said = device.offered("challenge"), device.offered("authorization")

    def proof(jti: str = challenge, authorization: str | None = said, **how: Any) -> str:
        return device.proof(jti, register=True, authorization=authorization, **how)

    good = proof()
    head, body, signature = good.split(".")
    octets = json.dumps(device.jwk).encode()
    small, small_jwk = rsa_signer(1024)
    off_curve = {**device.jwk, "y": device.jwk["x"]}
    tries: dict[str, list[str]] = {
        "over 4 KiB": [proof(more="x" * MOST_PROOF)],
        "two parts": [f"{head}.{body}", f"{body}.{signature}"],
        "four parts": [f"{good}.{signature}", f"{good}.", f".{good}"],
        "padded base64": [f"{good}==", f"{head}=.{body}.{signature}", f"{head}.{body}=.{signature}"],
        "a header that is no JSON": [_of_text("x", device, body), _of_text("[]", device, body)],
        "typ JWT": [proof(header={"typ": "JWT"}), proof(header={"typ": "DBSC+JWT"})],
        "no typ": [proof(header={"typ": None})],
        "alg none": [
            *(proof(header={"alg": none}, sign=_nothing) for none in ("none", "None", "")),
            *(proof(header={"alg": none}) for none in ("none", "nOnE")),
        ],
        "alg HS256": [proof(header={"alg": "HS256"}, sign=lambda text: hmac.digest(octets, text, "sha256"))],
        "an alg that was not offered": [
            *(proof(header={"alg": alg}) for alg in ("ES384", "EdDSA", "PS256", "es256")),
            proof(header={"alg": "RS256"}),
            proof(header={"alg": None}),
        ],
        "no jwk": [device.proof(challenge, authorization=said)],
        "a private jwk": [proof(header={"jwk": device.private_jwk}), proof(header={"jwk": {**device.jwk, "k": "AA"}})],
        "a jwk off the curve": [proof(header={"jwk": off_curve})],
        "an RSA jwk of 1024 bits": [proof(header={"alg": "RS256", "jwk": small_jwk}, sign=small)],
        "a flipped signature": [f"{head}.{body}.{_flipped(signature)}", f"{head}.{_flipped(body)}.{signature}"],
        "a signature in DER": [proof(sign=device.signed_in_der)],
        "r = s = 0": [proof(sign=lambda _: bytes(64))],
        "an unknown jti": [proof("A" * 75), proof(challenge[:-1]), proof(""), proof(f"{challenge} ")],
        "the jti of another session": [proof(stranger.offered("challenge"))],
        "no authorization, or another": [
            *(proof(authorization=other) for other in (None, "", "A" * 24, f"{said}x")),
            proof(authorization=stranger.offered("authorization")),
        ],
    }
    return {
        "no header": [[], [""]],
        "two headers": [[good, good], [good, "x"], ["x", good]],
        **{name: [[one] for one in proofs] for name, proofs in tries.items()},
    }


def _of_text(text: str, device: Device, body: str) -> str:
    signed = f"{text_of(text.encode())}.{body}"
    return f"{signed}.{text_of(device.signed(signed.encode()))}"


def _flipped(part: str) -> str:
    return part[:9] + ("A" if part[9] != "A" else "B") + part[10:]


def _nothing(_: bytes) -> bytes:
    return b""
