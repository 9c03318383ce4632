"""An identity provider that a row may play: keys, logout tokens and security events, as good or as bad as is asked.

`Outlet` is the other half: the receivers of a site, mounted beside it in the same world, ASGI or WSGI.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, Self, cast
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ...core.session import Session
from ..browser import Browser, Driver, Received, Sent
from ..drivers import AsgiDriver, WsgiDriver
from .site import Site
from .verdicts import unfit

ISSUER, OTHER_ISSUER, CLIENT, CAEP = "https://op.example", "https://other.example", "shop", "https://shop.example/caep"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
_numbers = count(1)


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Return the key of that name, made when it is first asked for; "small" is one that nobody should take."""
    return rsa.generate_private_key(65537, 1024 if name == "small" else 2048)


@cache
def curve_key() -> ec.EllipticCurvePrivateKey:
    """Return a key of P-256, which the provider publishes as well."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def key_set() -> dict[str, Any]:
    """Return the keys that the provider publishes: "one", a curve, and one that is too small."""
    numbers = curve_key().public_key().public_numbers()
    curve = {"kty": "EC", "crv": "P-256", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32)}
    return {
        "keys": [
            {**_public(rsa_key("one")), "kid": "one"},
            {**curve, "kid": "curve"},
            {**_public(rsa_key("small")), "kid": "small"},
        ]
    }


def signed(claims: dict[str, Any], header: dict[str, Any], by: Any = "one") -> str:
    """Return a token; a header or claim that is `...` is left out. `by`: a key's name, a curve, a secret, or None."""
    parts = [{name: value for name, value in part.items() if value is not ...} for part in (header, claims)]
    text = ".".join(_text(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_text(_signature(text.encode(), by))}"


def _signature(text: bytes, by: Any) -> bytes:
    if by is None:
        return b""
    if isinstance(by, bytes):
        return hmac.digest(by, text, "sha256")
    if isinstance(by, str):
        return rsa_key(by).sign(text, padding.PKCS1v15(), SHA256())
    r, s = decode_dss_signature(cast("ec.EllipticCurvePrivateKey", by).sign(text, ec.ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def logout_token(now: float, by: Any = "one", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4)."""
    said = {"iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": _jti(), "events": {LOGOUT: {}}}
    return signed({**said, **claims}, {"alg": "RS256", "kid": "one", "typ": "logout+jwt", **(header or {})}, by)


def event_token(
    now: float,
    subject: Any,
    by: Any = "one",
    *,
    header: dict[str, Any] | None = None,
    event: Any = None,
    **claims: Any,
) -> str:
    """Return a security event token with CAEP's session-revoked (RFC 8417, CAEP 1.0 section 3.1)."""
    told = {"event_timestamp": now, "initiating_entity": "policy"} if event is None else event
    said = {"iss": ISSUER, "aud": CAEP, "iat": now, "jti": _jti(), "sub_id": subject, "events": {REVOKED: told}}
    return signed({**said, **claims}, {"alg": "RS256", "kid": "one", "typ": "secevent+jwt", **(header or {})}, by)


class Outlet:
    """The receivers of a site: where its provider sends logout tokens and security events."""

    def __init__(self, site: Site, keys: Any = None, **stream: Any) -> None:
        """Mount both endpoints on the site's own store, as its adapter would; unfit without the receivers' library.

        `keys`: what the receivers know of the provider's, if not what it publishes.
        """
        try:
            from ...receivers import AsyncReceiver, Issuer, Receiver, Stream, asgi_endpoint, wsgi_endpoint
        except ModuleNotFoundError as missing:
            unfit(f"the receivers need {missing.name}, which is not installed.")
        self.site = site
        keys = key_set() if keys is None else keys
        issuers = [Issuer(issuer=name, audience=CLIENT, keys=keys) for name in (ISSUER, OTHER_ISSUER)]
        streams = [Stream(issuer=ISSUER, audience=CAEP, keys=keys, **stream)]
        manager, store = site.control.manager, site.control.store
        self._linker = Receiver(manager, site.control.plain, issuers=issuers, streams=streams)
        self._doors: dict[str, Driver]
        if isinstance(site.driver, AsgiDriver):
            awaited = AsyncReceiver(manager, store.as_async(), issuers=issuers, streams=streams)
            self._doors = {
                "/logout": AsgiDriver(asgi_endpoint(awaited.logout)),
                "/events": AsgiDriver(asgi_endpoint(awaited.event)),
            }
        else:
            receiver = Receiver(manager, store, issuers=issuers, streams=streams)
            self._doors = {
                # the validator asks for a Content-Type even where there is no content
                "/logout": WsgiDriver(wsgi_endpoint(receiver.logout), validate=False),
                "/events": WsgiDriver(wsgi_endpoint(receiver.event), validate=False),
            }

    def __enter__(self) -> Self:
        """Return the outlet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the doors; a broken protocol fails the row."""
        for door in self._doors.values():
            door.close()

    def logged_in(self, user: str, sub: str, sid: str | None = None, issuer: str = ISSUER) -> Browser:
        """Return a browser whose session stands on one of the provider's."""
        browser = self.site.logged_in(user)
        handle = (browser.token or "").split(".")[1]
        session = cast("Session", SimpleNamespace(handle=handle, subject=user))
        self._linker.link(session, issuer, sub=sub, sid=sid)
        return browser

    def logout(self, token: str, **headers: str) -> Received:
        """Send a logout token, as providers do: no cookie, no Origin."""
        form = "application/x-www-form-urlencoded"
        return self.send("/logout", urlencode({"logout_token": token}).encode(), {"content-type": form, **headers})

    def event(self, token: str, **headers: str) -> Received:
        """Push a security event token (RFC 8935)."""
        return self.send("/events", token.encode(), {"content-type": "application/secevent+jwt", **headers})

    def send(self, path: str, body: bytes, headers: dict[str, str], method: str = "POST") -> Received:
        """Send anything to one of the endpoints."""
        pairs = [("host", "testserver"), ("content-length", str(len(body))), *headers.items()]
        return self._doors[path].start(Sent(method, path, "https", pairs, body)).result()


def _jti() -> str:
    return f"j{next(_numbers)}"


def _public(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "e": "AQAB", "n": _number(numbers.n, (numbers.n.bit_length() + 7) // 8)}


def private_key(name: str) -> dict[str, Any]:
    """Return a key with its private parts (RFC 7518 section 6.3.2), as whoever signs has it."""
    key = rsa_key(name)
    numbers = key.private_numbers()
    parts = {"d": numbers.d, "p": numbers.p, "q": numbers.q}
    parts |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    private = {part: _number(value, (value.bit_length() + 7) // 8) for part, value in parts.items()}
    return {**_public(key), **private, "kid": name}


def _number(value: int, length: int) -> str:
    return _text(value.to_bytes(length))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
