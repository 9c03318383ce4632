"""Cross-site request forgery: judge a request by its headers, and bind a token to a session.

The order of `check` is its documentation. It follows Go's net/http CrossOriginProtection (F. Valsorda), hardened:
scheme and port count, same-site is another site, two different headers are refused, unknown methods are unsafe.
The token is OWASP's signed double submit (CSRF Prevention cheat sheet), with the session's own key.
"""

from __future__ import annotations

import hmac
import re
from binascii import b2a_base64
from collections.abc import Collection
from enum import IntEnum
from urllib.parse import urlsplit

from .errors import ConfigError
from .model import Request
from .tokens import Entropy

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_TOKEN = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}", re.ASCII).fullmatch
_MASKED = re.compile(r"m\.[A-Za-z0-9_-]{344}", re.ASCII).fullmatch
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
    if request.method in SAFE_METHODS:
        return Evidence.SAFE_METHOD
    site = request.header(b"sec-fetch-site")
    origin = request.header(b"origin").decode("latin-1")
    if site in (b"same-origin", b"none"):
        return Evidence.SAME_ORIGIN
    if request.path in exempt or (origin and origin in trusted):
        return Evidence.EXEMPT
    if site:
        # same-site too: a sibling subdomain is somebody else (hosting platforms, forgotten DNS records)
        return Evidence.CROSS_ORIGIN
    if not origin:
        # neither header: not a browser of the last years, so nobody's cookie was ridden; login asks for more
        return Evidence.MISSING
    return Evidence.SAME_ORIGIN if same_origin(request, origin, origins) else Evidence.CROSS_ORIGIN


def same_origin(request: Request, origin: str, origins: Collection[str]) -> bool:
    """Tell whether an Origin header names this application: one of `origins`, or else the request's own host."""
    if origins:
        return origin in origins
    host = request.header(b"host").decode("latin-1").lower()
    if request.scheme in ("https", "wss"):
        return origin == f"https://{host}"
    return origin in (f"http://{host}", f"https://{host}")


def check_origin(text: str) -> str:
    """Return an origin in the one spelling that browsers send, or raise ConfigError."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path not in ("", "/") or port == -1:
        message = f"an origin is scheme://host[:port], as in 'https://shop.example' (found {text!r})"
        raise ConfigError(message)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def token(key: bytes, sid: str, rand: bytes) -> str:
    """Return the token of session `sid` for 32 random bytes."""
    text = rand.hex()
    return f"{_mac(key, sid, text)}.{text}"


def verify(key: bytes, sid: str, presented: str) -> bool:
    """Tell whether `presented` (masked or plain) is a token of session `sid`; constant time in its secret part."""
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
    return "m." + b2a_base64(pad + cipher, newline=False).translate(_URLSAFE).rstrip(b"=").decode("ascii")


def _unmasked(text: str) -> str:
    from binascii import Error, a2b_base64

    body = text[2:].encode("ascii").translate(_UNURL)
    try:
        raw = a2b_base64(body + b"=" * (-len(body) % 4))
    except Error:
        return ""
    half = len(raw) // 2
    return bytes(a ^ b for a, b in zip(raw[:half], raw[half:], strict=False)).decode("latin-1")


def _mac(key: bytes, sid: str, text: str) -> str:
    message = f"{len(sid)}!{sid}!{len(text)}!{text}"
    return hmac.digest(key, message.encode(), "sha256").hex()
