"""Cookies, on bytes: find ours in a Cookie header, write Set-Cookie, and dress a response.

Rules (RFC 6265bis; the attacks behind them: docs/why/cookies.md)
- Pairs begin at the start or after `;`. Only space and tab are trimmed, names are compared byte for byte, nothing is
  unquoted: lenient parsers undo `__Host-`.
- A `,` may end our value, but begins no pair: browsers keep commas in values, so a sibling host could plant
  `theme=x,__Host-coat=...` for the whole domain. Only a server that joins repeated Cookie headers by `,` needs more
  (`comma_joined`), and pays for it with that guarantee.
- Two different values under our name are nobody's session, never "the first wins".
- What a browser would refuse or weaken is refused when the application is built, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from .errors import ConfigError, DataError
from .model import Headers, Outcome

SameSite = Literal["Lax", "Strict", "None"]

MOST_HEADER = 16_384
"""Bytes of a Cookie header above which a request is refused unread: nginx, Apache and gunicorn stop at 8 KiB a line,
Node at 16 KiB. Below it any number of cookies is one scan (the worst header takes 2 ms), so nobody counts them."""
MOST_COOKIE = 4096
"""Bytes of name and value together that browsers keep (RFC 6265bis section 5.6)."""
MOST_ATTRIBUTE = 1024
MOST_AGE = 34_560_000
"""Seconds (400 days) to which browsers cut Max-Age (RFC 6265bis section 5.5)."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
PREFIXES = ("__Host-Http-", "__Host-", "__Http-", "__Secure-")
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*").fullmatch
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
).fullmatch
_OCTETS = bytes(c for c in range(0x21, 0x7F) if c not in b'",;\\')
_INSECURE = "-insecure"  # how settings.insecure_name ends: the one name that may go without Secure


class Ambiguous:
    """The type of AMBIGUOUS: our cookie came with two different values."""


AMBIGUOUS: Final = Ambiguous()


class CookieSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Name and attributes of our cookie; `check` refuses what a browser would refuse.

    `reason` is why the cookie must be weaker than the default (SameSite=None, a Domain, a name without prefix);
    without one that is refused.
    """

    name: str = "__Host-coat"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    http_only: bool = True
    same_site: SameSite = "Lax"
    partitioned: bool = False
    reason: str = ""

    def check(self) -> None:
        """Raise ConfigError for a combination that a browser refuses or that gives the session away."""
        for problem in self._problems():
            message = f"cookie {self.name!r}: {problem}"
            raise ConfigError(message)

    def _problems(self) -> Iterable[str]:
        yield from self._malformed()
        yield from self._refused_by_browsers()
        yield from self._given_away()

    def _malformed(self) -> Iterable[str]:
        if not _TOKEN(self.name):
            yield "the name must be an RFC 9110 token (letters, digits and !#$%&'*+-.^_`|~)"
        if self.same_site not in ("Lax", "Strict", "None"):
            yield f"same_site is 'Lax', 'Strict' or 'None' (found {self.same_site!r})"
        if not self.path.startswith("/") or not _ATTRIBUTE(self.path) or len(self.path) > MOST_ATTRIBUTE:
            yield f"the path must start with / and hold printable ASCII but no semicolon (found {self.path!r:.80})"
        if self.domain is not None and not (_DOMAIN(self.domain) and len(self.domain) <= 253):
            yield f"the domain must be a host name with a dot in it (found {self.domain!r:.80})"

    def _refused_by_browsers(self) -> Iterable[str]:
        prefix = _prefix(self.name)
        if not self.name.startswith(prefix):
            yield f"browsers treat the name as {prefix} in any case; write it {prefix}{self.name[len(prefix) :]}"
        if prefix and not self.secure:
            yield f"{prefix} needs Secure; set secure=True or choose a name without prefix"
        if prefix.startswith("__Host-") and self.domain is not None:
            yield f"{prefix} forbids Domain (found {self.domain!r}); drop it, or name the cookie __Secure-..."
        if prefix.startswith("__Host-") and self.path != "/":
            yield f"{prefix} needs Path=/ (found {self.path!r}); or name the cookie __Secure-..."
        if "Http-" in prefix and not self.http_only:
            yield f"{prefix} needs HttpOnly"
        if self.same_site == "None" and not self.secure:
            yield "SameSite=None needs Secure"
        if self.partitioned and not self.secure:
            yield "Partitioned needs Secure"

    def _given_away(self) -> Iterable[str]:
        if not self.secure and not self.name.endswith(_INSECURE):
            yield "without Secure the session travels in clear text; for http on localhost there is allow_insecure_http"
        if not self.http_only:
            yield "a session readable by scripts is stolen by the first injected one; http_only must stay True"
        if self.reason:
            return
        if self.same_site == "None":
            yield "SameSite=None sends the session with every cross-site request; say why with reason='...'"
        if self.domain is not None:
            yield f"Domain={self.domain} hands the session to every host below it; say why with reason='...'"
        if self.secure and not _prefix(self.name):
            yield f"any sibling host can plant it; name it __Host-{self.name}, or say why not with reason='...'"


def _prefix(name: str) -> str:
    """Return the prefix that browsers see in a name, in whatever case it is written, or ""."""
    return next((prefix for prefix in PREFIXES if name.lower().startswith(prefix.lower())), "")


class CookieWriter:
    """Reads and writes one cookie; the attributes are spelled once."""

    __slots__ = ("_clear", "_comma_joined", "_host", "_length", "_needle", "_suffix", "attributes", "name")

    def __init__(self, spec: CookieSpec, *, comma_joined: bool = False) -> None:
        """Take a checked spec.

        `comma_joined`: the server joins repeated Cookie headers by a comma (gunicorn behind a proxy that splits them),
        so a `__Host-` name may begin after one. Without such a proxy it only lets sibling hosts plant the cookie.
        """
        self.name = spec.name
        parts = [f"Path={spec.path}"]
        if spec.domain:
            parts.append(f"Domain={spec.domain}")
        if spec.secure:
            parts.append("Secure")
        if spec.http_only:
            parts.append("HttpOnly")
        parts.append(f"SameSite={spec.same_site}")
        if spec.partitioned:
            parts.append("Partitioned")
        self._needle = spec.name.encode("ascii") + b"="
        self._length = len(self._needle)
        self.attributes = "; ".join(parts)
        self._suffix = ("; " + self.attributes).encode("ascii")
        self._clear = self._needle + self._suffix + b"; Max-Age=0"
        self._host = spec.name.startswith("__Host-")
        self._comma_joined = comma_joined and self._host

    def find(self, header: bytes) -> bytes | Ambiguous | None:
        """Return our cookie's value in a Cookie header, None if it is not there, or AMBIGUOUS."""
        needle = self._needle
        parts = header.split(needle, 2)
        if len(parts) == 1:
            return None
        if len(parts) == 2 and (not parts[0] or parts[0].endswith(b"; ")):
            return self._value(parts[1].partition(b";")[0])  # once, as browsers write it
        at, found = header.find(needle), None
        while at >= 0:
            start = at + self._length
            if self._begins_pair(header, at):
                end = header.find(b";", start)
                value = self._value(header[start:end] if end >= 0 else header[start:])
                if found is None:
                    found = value
                elif found != value:
                    return AMBIGUOUS
            at = header.find(needle, start)
        return found

    def _value(self, value: bytes) -> bytes:
        comma = value.find(b",") if self._host else -1
        return (value if comma < 0 else value[:comma]).strip(b" \t")

    def _begins_pair(self, header: bytes, at: int) -> bool:
        before = header[max(0, at - 64) : at].rstrip(b" \t") or header[:at].rstrip(b" \t")
        return not before or before.endswith(b";") or (self._comma_joined and before.endswith(b","))

    def write(self, value: bytes, max_age: float | None = None) -> bytes:
        """Return the Set-Cookie that hands out `value`; without `max_age` (seconds) it dies with the browser.

        Raises DataError for a value that no browser would keep: too long, or not cookie octets.
        """
        if self._length - 1 + len(value) > MOST_COOKIE:
            message = f"cookie {self.name!r} would have {len(value)} bytes; browsers keep {MOST_COOKIE} with the name"
            raise DataError(message, key=self.name, found="cookie")
        if value.translate(None, _OCTETS):
            message = f"cookie {self.name!r} would hold bytes that are no cookie octets (RFC 6265bis section 4.1.1)"
            raise DataError(message, key=self.name, found="cookie")
        age = b"" if max_age is None else b"; Max-Age=%d" % max(0, min(max_age, MOST_AGE))
        return self._needle + value + self._suffix + age

    def clear(self) -> bytes:
        """Return the Set-Cookie that takes the cookie away, with the attributes it was set with."""
        return self._clear


def dress(headers: Headers, outcome: Outcome) -> Headers:
    """Return response headers with the outcome's: Set-Cookie appended, Vary merged, Cache-Control replaced.

    One function for all adapters. RFC 9111 section 7.3: Set-Cookie does not stop a cache, so no-store goes with it, and
    what would overrule it goes away. A cookie of the same name set before gives way: browsers keep but one. So does
    what we put there ourselves, where an adapter has a response dressed again (an error page, a header added since).
    """
    if not outcome.cookies and not outcome.vary:
        return headers
    if not outcome.cookies and not _has_vary(headers):
        return [*headers, _VARY_COOKIE if outcome.vary == ("Cookie",) else _vary(headers, outcome.vary)]
    names = tuple(cookie.partition(b"=")[0] + b"=" for cookie in outcome.cookies)
    dressed = [(name, value) for name, value in headers if not _gives_way(name.lower(), value, outcome, names)]
    if outcome.vary:
        plain = outcome.vary == ("Cookie",) and not _has_vary(headers)
        dressed.append(_VARY_COOKIE if plain else _vary(headers, outcome.vary))
    if outcome.cookies:
        dressed.append((b"cache-control", b"no-store"))
        dressed.extend((b"set-cookie", cookie) for cookie in outcome.cookies)
        dressed.extend(outcome.headers)
    return dressed


def added(dressed: Headers, before: Headers) -> Headers | None:
    """Return what was put behind the headers from before, or None: not all of those are there any more."""
    count = len(before)
    return dressed[count:] if dressed[:count] == before else None


_VARY_COOKIE = (b"vary", b"Cookie")
_CACHING = frozenset({b"cache-control", b"expires", b"pragma", b"surrogate-control", b"x-accel-expires"})
"""What tells caches how long to keep a response; `...-cdn-cache-control` (RFC 9213) besides."""


def _gives_way(name: bytes, value: bytes, outcome: Outcome, names: tuple[bytes, ...]) -> bool:
    if name == b"vary":
        return bool(outcome.vary)
    if not names:
        return False
    if name == b"set-cookie":
        return value.startswith(names)
    return name in _CACHING or name.endswith(b"cdn-cache-control") or (name, value) in outcome.headers


def _has_vary(headers: Headers) -> bool:
    for name, _ in headers:  # noqa: SIM110 - any() over a generator costs three times as much here
        if len(name) == 4 and name.lower() == b"vary":
            return True
    return False


def _vary(headers: Headers, ours: Iterable[str]) -> tuple[bytes, bytes]:
    present = [part.strip() for name, value in headers if name.lower() == b"vary" for part in value.split(b",")]
    if b"*" in present:
        return (b"vary", b"*")
    merged: dict[bytes, bytes] = {}
    for part in (*present, *(name.encode("ascii") for name in ours)):
        if part:
            merged.setdefault(part.lower(), part)
    return (b"vary", b", ".join(merged.values()))
