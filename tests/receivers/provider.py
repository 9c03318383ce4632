"""An identity provider made for a test: keys, logout tokens, security events, as good or as bad as is asked."""

import json
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from coatcheck.core.model import Request
from coatcheck.core.notices import LOGOUT, REVOKED

ISSUER, CLIENT, CAEP = "https://op.example", "shop", "https://shop.example/caep"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})
SMALL = RSAKey.generate_key(1024, {"kid": "small"})
CURVE = ECKey.generate_key("P-256", {"kid": "curve"})
JWKS = {"keys": [KEY.as_dict(private=False), CURVE.as_dict(private=False), SMALL.as_dict(private=False)]}
_ABSENT = object()


def signed(claims: dict[str, Any], key: Any = KEY, **header: Any) -> str:
    """Return a token; a header or claim that is `...` is left out."""
    protected = {"alg": "RS256", "kid": key.kid if key else None, **header}
    protected = {name: value for name, value in protected.items() if value not in (..., None)}
    payload = json.dumps({name: value for name, value in claims.items() if value is not ...})
    return jws.serialize_compact(protected, payload, key, algorithms=[protected["alg"]])


_number = 0


def logout_token(now: float, key: Any = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    global _number  # noqa: PLW0603 - each token has its own jti
    _number += 1
    said = {
        "iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": f"j{_number}", "events": {LOGOUT: {}},
        **claims,
    }  # fmt: skip
    return signed(said, key, **{"typ": "logout+jwt", **(header or {})})


def event_token(
    now: float, sub_id: Any, key: Any = KEY, header: dict[str, Any] | None = None, event: Any = None, **claims: Any
) -> str:
    global _number  # noqa: PLW0603 - each token has its own jti
    _number += 1
    event = {"event_timestamp": now, "initiating_entity": "policy"} if event is None else event
    said = {
        "iss": ISSUER,
        "aud": CAEP,
        "iat": now,
        "jti": f"j{_number}",
        "sub_id": sub_id,
        "events": {REVOKED: event},
        **claims,
    }
    return signed(said, key, **{"typ": "secevent+jwt", **(header or {})})


def by_hand(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a token with any header at all, well signed."""

    def text(raw: bytes) -> bytes:
        return urlsafe_b64encode(raw).rstrip(b"=")

    signed_part = text(json.dumps(header).encode()) + b"." + text(json.dumps(claims).encode())
    private = KEY.private_key
    assert private is not None
    return (signed_part + b"." + text(private.sign(signed_part, PKCS1v15(), SHA256()))).decode()


def unsigned(now: float) -> str:
    """Return a token of alg none."""
    good = logout_token(now, sub="u1").split(".")
    head = urlsafe_b64encode(b'{"alg":"none","typ":"logout+jwt"}').rstrip(b"=").decode()
    return f"{head}.{good[1]}."


def by_secret(now: float, secret: bytes = b"a client secret that both sides know") -> str:
    """Return a token signed with a shared secret."""
    return logout_token(now, OctKey.import_key(secret), {"alg": "HS256"}, sub="u1")


def form(token: str, **more: str) -> tuple[Request, bytes]:
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    return Request("POST", "https", "/out", [kind]), urlencode({"logout_token": token, **more}).encode()


def push(token: str, *headers: tuple[bytes, bytes]) -> tuple[Request, bytes]:
    kind = (b"content-type", b"application/secevent+jwt")
    return Request("POST", "https", "/caep", [kind, *headers]), token.encode()
