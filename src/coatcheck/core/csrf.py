"""Cross-site request forgery: judge a request by its headers, and bind a token to a session.

The order of `evidence` is its documentation. It follows Go's net/http CrossOriginProtection (F. Valsorda), hardened:
scheme and port count, same-site is another site, repeated headers are refused, unknown methods are unsafe, and a
websocket handshake, a GET that no preflight guards, is judged by its Origin.
The token is OWASP's signed double submit (CSRF Prevention cheat sheet), with the session's own key.
"""

from __future__ import annotations

import hmac
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection
from enum import IntEnum
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from .errors import ConfigError
from .model import Entropy, Request

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_TOKEN = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}").fullmatch
_MASKED = re.compile(r"m\.[A-Za-z0-9_-]{344}").fullmatch
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+").fullmatch
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_UNURL = bytes.maketrans(b"-_", b"+/")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Evidence(IntEnum):
    """What the headers of a request say of where it came from."""

    SAFE_METHOD = 1
    SAME_ORIGIN = 2
    EXEMPT = 3
    MISSING = 4
    CROSS_ORIGIN = 5


def evidence(request: Request, origins: Collection[str], trusted: Collection[str], exempt: Collection[str]) -> Evidence:
    """Return what the Fetch metadata and Origin of a request prove; `origins` empty means "the Host header's"."""
    if request.method in SAFE_METHODS and request.kind != "websocket":
        return Evidence.SAFE_METHOD
    site = request.header(b"sec-fetch-site") if request.kind != "websocket" else b""
    origin = request.header(b"origin").decode("latin-1")
    if b"," in site or "," in origin:
        # no browser sends either twice: somebody in between added one, and we cannot know which is the browser's
        return Evidence.CROSS_ORIGIN
    if site in (b"same-origin", b"none"):
        return Evidence.SAME_ORIGIN
    if request.path in exempt or (origin and origin in trusted):
        return Evidence.EXEMPT
    if site:
        # same-site too: a sibling subdomain is somebody else (hosting platforms, forgotten DNS records)
        return Evidence.CROSS_ORIGIN
    if not origin:
        # neither header: not a browser of the last years, so nobody's cookie was ridden; login and sockets ask for more
        return Evidence.MISSING
    return Evidence.SAME_ORIGIN if same_origin(request, origin, origins) else Evidence.CROSS_ORIGIN


def why(request: Request) -> str:
    """Return which header says that another site caused a request: a word for whoever reads the events."""
    site, origin = request.header(b"sec-fetch-site"), request.header(b"origin")
    if b"," in site or b"," in origin:
        return "repeated_header"
    if site and request.kind != "websocket":
        return "fetch_site"
    return "origin" if origin else "no_origin"


def same_origin(request: Request, origin: str, origins: Collection[str]) -> bool:
    """Tell whether an Origin header names this application: one of `origins`, or else the request's own host."""
    if origins:
        return origin in origins
    host = request.header(b"host").decode("latin-1").lower()
    if not host:
        return False
    if origin == f"https://{host.removesuffix(':443')}":
        return True
    # behind a proxy that ends TLS and does not say so, "http" is what we see of either: then both schemes are ours
    return request.scheme not in ("https", "wss") and origin == f"http://{host.removesuffix(':80')}"


def is_embedded(request: Request) -> bool:
    """Tell whether another site's page asked for this by a safe method, in a frame or an image: no user went here."""
    if request.method not in SAFE_METHODS or request.header(b"sec-fetch-site") not in (b"cross-site", b"same-site"):
        return False
    return request.header(b"sec-fetch-dest") not in (b"", b"document")


def check_origin(text: str) -> str:
    """Return an origin in the one spelling that browsers send, or raise ConfigError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            host = f"[{IPv6Address(host)}]"
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or not bare or not _HOST(host.strip("[]")) or not text.isprintable():
        message = f"an origin is scheme://host[:port], as in 'https://shop.example' (found {text!r:.80})"
        if not text.isascii():
            message += "; write the host as browsers send it, in punycode (xn--...)"
        raise ConfigError(message)
    suffix = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def token(key: bytes, sid: str, rand: bytes) -> str:
    """Return the token of session `sid` for 32 random bytes."""
    text = rand.hex()
    return f"{_mac(key, sid, text)}.{text}"


def verify(key: bytes, sid: str, presented: object) -> bool:
    """Tell whether `presented` (masked or plain) is a token of session `sid`; constant time in its secret part.

    Whatever a form can yield may be asked about: nothing, or an uploaded file, is simply no token.
    """
    if not isinstance(presented, str):
        return False
    if _MASKED(presented):
        presented = _unmasked(presented)
    if not _TOKEN(presented):
        return False
    mac, _, text = presented.partition(".")
    return hmac.compare_digest(mac, _mac(key, sid, text))


def masked(plain: str, entropy: Entropy) -> str:
    """Return the token under a fresh one-time pad: compressed pages that repeat it do not leak it (BREACH)."""
    raw = plain.encode("ascii")
    pad = entropy(len(raw))
    cipher = bytes(a ^ b for a, b in zip(raw, pad, strict=True))
    return "m." + b2a_base64(pad + cipher, newline=False).translate(_URLSAFE).decode("ascii")


def _unmasked(text: str) -> str:
    raw = a2b_base64(text[2:].encode("ascii").translate(_UNURL))
    half = len(raw) // 2
    return bytes(a ^ b for a, b in zip(raw[:half], raw[half:], strict=True)).decode("latin-1")


def _mac(key: bytes, sid: str, text: str) -> str:
    message = f"{len(sid)}!{sid}!{len(text)}!{text}"
    return hmac.digest(key, message.encode(), "sha256").hex()
