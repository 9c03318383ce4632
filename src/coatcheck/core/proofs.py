"""The proofs that a browser signs for Device Bound Session Credentials: a strict reader of one small kind of JWT.

Rules (W3C Device Bound Session Credentials, "DBSC proof"; RFC 7515, 7518, 8725; checked against Chromium 156)
- Three base64url parts without padding, each in its one spelling; at most `MOST_PROOF` bytes.
- `typ` is dbsc+jwt, `alg` one of those offered, and each algorithm has its own kind of key: nothing is tried.
- A key in the header counts at registration only; at refresh there is none, the stored key verifies.
- `kid`, `jku`, `x5u` and unknown claims say nothing to us; `crit` is refused.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from typing import Any, Final, NoReturn

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

ALGORITHMS: Final = ("ES256", "RS256")
MOST_PROOF: Final = 4096

_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)").fullmatch
_UNURL = bytes.maketrans(b"-_", b"+/")
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-5, D.1.2.3)
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class ProofError(Exception):
    """A proof that is none; the message says why, for tests and logs, never for its sender."""


class Proof(msgspec.Struct, frozen=True, gc=False):
    """A parsed, not yet believed proof."""

    alg: str
    jwk: dict[str, Any] | None
    jti: str
    authorization: str | None
    audience: str | None
    signed: bytes
    signature: bytes


class DeviceKey(msgspec.Struct, frozen=True, gc=False):
    """A browser's public key: its algorithm, how it is kept (DER, RFC 5280), and its RFC 7638 thumbprint."""

    alg: str
    der: bytes
    thumbprint: bytes


def read(raw: bytes) -> Proof:
    """Return what a proof says, or raise ProofError; its signature is not looked at yet."""
    if len(raw) > MOST_PROOF:
        _refuse(f"the proof has {len(raw)} bytes, at most {MOST_PROOF} count")
    match = _SHAPE(raw)
    if match is None:
        _refuse("the proof is not three base64url parts without padding")
    head, body, tail = match.groups()
    header, claims = _object(head), _object(body)
    if header.get("typ") != "dbsc+jwt":
        _refuse(f"typ is dbsc+jwt (found {header.get('typ')!r:.40})")
    if header.get("alg") not in ALGORITHMS:
        _refuse(f"alg is one of those offered (found {header.get('alg')!r:.40})")
    if "crit" in header:
        _refuse("the header demands extensions (crit), and none is known")
    jwk, jti = header.get("jwk"), claims.get("jti")
    if jwk is not None and not isinstance(jwk, dict):
        _refuse("jwk is an object")
    if not isinstance(jti, str):
        _refuse("jti, the challenge, is missing")
    return Proof(
        header["alg"],
        jwk,
        jti,
        _text(claims, "authorization"),
        _text(claims, "aud"),
        head + b"." + body,
        _decoded(tail),
    )


def key_of(proof: Proof) -> DeviceKey:
    """Return the key that a registration brings, or raise ProofError."""
    jwk = proof.jwk
    if jwk is None:
        _refuse("a registration brings its key (jwk)")
    if _PRIVATE & jwk.keys():
        _refuse("the jwk has private members")
    public: EllipticCurvePublicKey | RSAPublicKey
    if proof.alg == "ES256":
        if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
            _refuse("ES256 needs a key of P-256")
        members = {"crv": "P-256", "kty": "EC", "x": jwk.get("x"), "y": jwk.get("y")}
        x, y = _number(jwk, "x", 32), _number(jwk, "y", 32)
        try:
            public = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
        except ValueError:
            _refuse("the point is not on the curve")
    else:
        if jwk.get("kty") != "RSA" or jwk.get("e") != "AQAB":
            _refuse("RS256 needs an RSA key with e=65537")
        members = {"e": "AQAB", "kty": "RSA", "n": jwk.get("n")}
        modulus = _number(jwk, "n", None)
        if not 2048 <= modulus.bit_length() <= 4096:
            _refuse(f"an RSA key has 2048 to 4096 bits (found {modulus.bit_length()})")
        try:
            public = RSAPublicNumbers(65537, modulus).public_key()
        except ValueError:
            _refuse("the RSA key is none")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return DeviceKey(proof.alg, der, sha256(msgspec.json.encode(members, order="sorted")).digest())


def verify(proof: Proof, alg: str, der: bytes) -> None:
    """Raise ProofError unless the key signed this proof with its own algorithm."""
    if proof.alg != alg:
        _refuse(f"the key is one for {alg} (found {proof.alg})")
    key = load_der_public_key(der)
    try:
        if alg == "ES256" and isinstance(key, EllipticCurvePublicKey):
            key.verify(_dss(proof.signature), proof.signed, ECDSA(SHA256()))
        elif alg == "RS256" and isinstance(key, RSAPublicKey):
            key.verify(proof.signature, proof.signed, PKCS1v15(), SHA256())
        else:
            _refuse("the stored key is of another kind")
    except InvalidSignature:
        _refuse("the signature is not the key's")


def _dss(signature: bytes) -> bytes:
    """Return a raw signature (RFC 7518 section 3.4) as the library wants it; r and s lie in [1, n-1]."""
    if len(signature) != 64:
        _refuse("an ES256 signature has 64 bytes")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        _refuse("r and s lie between 1 and n-1")
    return encode_dss_signature(r, s)


def _object(part: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_decoded(part))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a thousand brackets fit into a proof
        _refuse("a part of the proof is not JSON")
    if not isinstance(found, dict):
        _refuse("a part of the proof is no JSON object")
    return found


def _decoded(part: bytes) -> bytes:
    """Return what base64url spells; another spelling of the same bytes is refused."""
    try:
        raw = a2b_base64(part.translate(_UNURL) + b"=" * (-len(part) % 4))
    except NotBase64:
        _refuse("a part of the proof is not base64url")
    if b2a_base64(raw, newline=False).translate(_URLSAFE).rstrip(b"=") != part:
        _refuse("a part of the proof is not in its one spelling")
    return raw


def _number(jwk: dict[str, Any], name: str, length: int | None) -> int:
    value = jwk.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        _refuse(f"jwk.{name} is base64url")
    raw = _decoded(value.encode())
    if (length is not None and len(raw) != length) or (length is None and raw[:1] == b"\0"):
        _refuse(f"jwk.{name} has another length (found {len(raw)} bytes)")
    return int.from_bytes(raw)


def _text(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        _refuse(f"{name} is a text")
    return value


def _refuse(why: str) -> NoReturn:
    raise ProofError(why)
