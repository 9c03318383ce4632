"""Device Bound Session Credentials: what is kept of a binding, its challenges, and what is said to the browser.

The browser makes a key that never leaves the device, and proves every few minutes that it still has it. For that it is
given a short-lived second cookie; a copied jar holds one that soon ages, and the copier cannot sign for another.

Rules (W3C Device Bound Session Credentials, editor's draft of 2026-02-17; standards: docs/dbsc.md)
- `session_identifier` = handle (18) and a secret reference (24): a record is found by its primary key, and who knows
  only a handle is told what strangers are told.
- Challenges are stateless: base64url(ms, 16 random, HMAC). One counts while it is fresh and newer than the last one
  that was answered; so it counts once, the one before it is tolerated, and no list can be filled by others.
- The bound cookie is random: nothing that is in the long cookie leads to it.
"""

from __future__ import annotations

import hmac
import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .model import Entropy, Instant

Mode: TypeAlias = Literal["off", "opportunistic", "required"]

OFFER_FOR: Final = 300.0
"""Seconds after a login in which a browser may bind its session, once: until then the cookie is a bearer's."""
HONOURED_FOR: Final = 60.0
"""Seconds after the bound cookie was first seen in which requests without it are still on their way."""
QUOTA_SAFE: Final = 300.0
"""The shortest life of a bound cookie: Chromium signs 6 times in 9 minutes for a site, no more."""
WELL_KNOWN: Final = "/.well-known/device-bound-sessions"
"""Where browsers look which other origins may take part in a site's bindings."""
BOUNCED: Final = "coat-bounced=1"
"""What the query of a request says that was sent here by a bounce page."""

_IDENTIFIER = re.compile(rb'"?([A-Za-z0-9_-]{18}[A-Za-z0-9_-]{24})"?').fullmatch
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_UNURL = bytes.maketrans(b"-_", b"+/")
_VERSION: Final = b"\x01"


class DeviceBinding(msgspec.Struct, frozen=True, kw_only=True):
    """How sessions are bound to their device, for the setting `binding`.

    - mode: "opportunistic" binds where the browser can; "required" ends a login that is not bound after 5 minutes.
      subjects: whose logins are required to be, whatever the mode. routes: path prefixes for bound sessions only.
    - lifetime: seconds for which a bound cookie counts, so for how long a copied jar does. why: a reason to have it
      shorter than browsers' quota of signatures allows (tests).
    - path: where the two endpoints lie; coatcheck answers them itself.
    - static: path prefixes that no browser need prove anything for; no session is seen there without the bound cookie.
    - relying_origins: other sites that may bind sessions to the keys of ours. provider_origin: the site whose keys ours
      may be bound to. registering_origins: hosts below ours that may bind sessions for all of it. What is named here is
      served at /.well-known/device-bound-sessions for browsers to read; the bindings themselves are those parties' own.
    """

    mode: Literal["opportunistic", "required"] = "opportunistic"
    subjects: Callable[[str], bool] | None = None
    routes: Sequence[str] = ()
    lifetime: float = 600.0
    why: str = ""
    path: str = "/coatcheck/device"
    static: Sequence[str] = ("/static", "/assets", "/favicon.ico", "/robots.txt")
    relying_origins: Sequence[str] = ()
    provider_origin: str | None = None
    registering_origins: Sequence[str] = ()

    def problems(self) -> list[str]:
        """Return, a sentence each, what is wrong."""
        found = []
        if self.mode not in ("opportunistic", "required"):
            found.append(f"binding is 'off', 'opportunistic' or 'required' (found {self.mode!r:.40})")
        if isinstance(self.routes, str) or isinstance(self.static, str):
            found.append("binding: routes and static are lists of path prefixes, not texts; write ['/admin']")
        if isinstance(self.relying_origins, str) or isinstance(self.registering_origins, str):
            found.append("binding: relying_origins and registering_origins are lists of origins, not texts")
        paths = (self.path, *self.routes, *self.static)
        odd = [path for path in paths if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", path)]
        found.extend(f"binding: paths start with / and need no escaping (found {path!r:.60})" for path in odd)
        if self.relying_origins and self.provider_origin is not None:
            found.append(
                "binding: a site has relying_origins or a provider_origin, never both; browsers refuse it then"
            )
        number = self.lifetime if type(self.lifetime) in (int, float) else 0.0
        if not 5.0 <= number <= 86400.0:
            found.append(f"binding: lifetime is 300 to 86400 seconds (found {self.lifetime!r:.40})")
        elif number < QUOTA_SAFE and not self.why:
            found.append(
                f"binding: a lifetime under {QUOTA_SAFE:g} s (found {number:g} s) uses up what browsers sign for one "
                "site; where that is wanted, say why='...'"
            )
        return found

    @property
    def well_known(self) -> bytes | None:
        """What browsers read at WELL_KNOWN (DBSC, "Well-known"); None: nothing is said, and the path is not ours."""
        told: dict[str, Any] = {}
        if self.registering_origins:
            told["registering_origins"] = list(self.registering_origins)
        if self.relying_origins:
            told["relying_origins"] = list(self.relying_origins)
        if self.provider_origin is not None:
            told["provider_origin"] = self.provider_origin
        return msgspec.json.encode(told) if told else None

    @property
    def register_path(self) -> str:
        """Where a browser brings its key."""
        return self.path.rstrip("/") + "/register"

    @property
    def refresh_path(self) -> str:
        """Where a browser proves that it still has it."""
        return self.path.rstrip("/") + "/refresh"


class Bound(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a record keeps of its binding; without `alg` it is an offer. Its order is the format: new fields go last.

    `key` makes its challenges; `proved` is the time (ms) of the newest one that was answered; `cookies` are the two
    newest bound cookies, hashed, and until when they count; `seen_at` is when the first of them came back.
    """

    key: bytes
    offered_at: Instant
    alg: str = ""
    public: bytes = b""
    thumbprint: bytes = b""
    reference: bytes = b""
    bound_at: Instant = 0.0
    seen_at: Instant | None = None
    proved: int = 0
    cookies: tuple[tuple[bytes, Instant], ...] = ()

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Bound({self.alg or 'offered'})"

    __str__ = __repr__


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Bound).decode


def packed(bound: Bound) -> bytes:
    """Return a binding as a record keeps it."""
    return _VERSION + _encode(bound)


def unpacked(raw: bytes | None) -> Bound | None:
    """Return the binding of a record; None: there is none. Raises ValueError for one that a later release wrote."""
    if raw is None:
        return None
    try:
        if raw[:1] == _VERSION:
            return _decode(raw[1:])
    except msgspec.DecodeError:
        pass
    message = "the binding was written by a later release"
    raise ValueError(message)


def is_bound(raw: bytes | None) -> bool:
    """Tell whether a record is bound to a device: a key was registered, and the browser came back with its cookie."""
    try:
        bound = unpacked(raw)
    except ValueError:
        return True
    return bound is not None and bound.seen_at is not None


# -- challenges ------------------------------------------------------------------------------------------------------


def challenge(bound: Bound, purpose: bytes, now: Instant, entropy: Entropy) -> str:
    """Return a fresh challenge, newer than the last one that was answered, also where another clock made that."""
    head = max(int(now * 1000), bound.proved + 1).to_bytes(8) + entropy(16)
    return _text(head + _mac(bound, purpose, head))


def answered(bound: Bound, purpose: bytes, presented: str, now: Instant, ttl: float) -> int | None:
    """Return the time (ms) of a challenge of ours that still counts, or None: foreign, too old, or used."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{75}", presented):
        return None
    try:
        raw = a2b_base64(presented.encode().translate(_UNURL) + b"=")
    except NotBase64:
        return None
    head = raw[:24]
    if _text(raw) != presented or not hmac.compare_digest(raw[24:], _mac(bound, purpose, head)):
        return None
    made = int.from_bytes(head[:8])
    return made if made > bound.proved and now * 1000 < made + ttl * 1000 else None


def authorization(bound: Bound) -> str:
    """Return what a registration must repeat of its offer."""
    return _text(hmac.digest(bound.key, b"coatcheck/dbsc/authorization/1", "sha256")[:18])


def _mac(bound: Bound, purpose: bytes, head: bytes) -> bytes:
    return hmac.digest(bound.key, b"coatcheck/dbsc/1\0%b\0%b" % (purpose, head), "sha256")


# -- names and cookies -----------------------------------------------------------------------------------------------


def secret(entropy: Entropy) -> bytes:
    """Return 24 random characters: a reference, or the value of a bound cookie."""
    return _text(entropy(18)).encode()


def hashed(value: bytes) -> bytes:
    """Return what is kept of a secret."""
    return sha256(b"coatcheck/bound/1\0" + value).digest()


def identifier(header: bytes) -> str | None:
    """Return the session identifier that a browser names, quoted (as the draft says) or bare (as Chromium sends it)."""
    match = _IDENTIFIER(_item(header))
    return None if match is None else match[1].decode("ascii")


def unquoted(header: bytes) -> bytes:
    """Return the proof in a Secure-Session-Response header, quoted or bare."""
    value = _item(header)
    return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value


def skipped(header: bytes) -> list[str]:
    """Return why a browser says that it did not refresh: a few tokens, for people to read; it excuses nothing."""
    words = [part.partition(b";")[0].strip(b" \t") for part in header[:512].split(b",")]
    return [word.decode() for word in words if re.fullmatch(rb"[a-z][a-z0-9_-]{0,40}", word)][:4]


def _item(header: bytes) -> bytes:
    """Return a header's value without what surrounds it and its parameters (RFC 9651)."""
    return header.partition(b";")[0].strip(b" \t")


def _text(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).translate(_URLSAFE).rstrip(b"=").decode("ascii")


# -- what the browser is told ----------------------------------------------------------------------------------------


def offer(bound: Bound, chosen: DeviceBinding, now: Instant, entropy: Entropy) -> tuple[bytes, bytes]:
    """Return the header that offers to bind the session: it rides on the answer to a login, and on no other."""
    said = f'(ES256 RS256);path="{chosen.register_path}";challenge="{challenge(bound, b"register", now, entropy)}"'
    return b"secure-session-registration", f'{said};authorization="{authorization(bound)}"'.encode()


def asked_again(bound: Bound, name: str, now: Instant, entropy: Entropy) -> tuple[bytes, bytes]:
    """Return the header with the next challenge of a bound session."""
    return b"secure-session-challenge", f'"{challenge(bound, b"refresh", now, entropy)}";id="{name}"'.encode()


def instructions(name: str, chosen: DeviceBinding, cookie: str, attributes: str) -> bytes:
    """Return the JSON that tells a browser what is bound, and for which paths it must prove it."""
    told: dict[str, Any] = {
        "session_identifier": name,
        "refresh_url": chosen.refresh_path,
        "scope": {
            "include_site": False,
            "scope_specification": [{"type": "exclude", "domain": "*", "path": path} for path in chosen.static],
        },
        "credentials": [{"type": "cookie", "name": cookie, "attributes": attributes}],
    }
    return msgspec.json.encode(told)


def over(name: str) -> bytes:
    """Return the JSON that ends a bound session in the browser."""
    return msgspec.json.encode({"session_identifier": name, "continue": False})
