"""Cookies, on bytes: find ours in a Cookie header, write Set-Cookie, and dress a response.

Rules (RFC 6265bis; the attacks behind them: docs/why/cookies.md)
- Pairs end at `;`, and for a prefixed name also at `,` (some servers join repeated headers so). Only space and tab are
  trimmed, names are compared byte for byte, nothing is unquoted: lenient parsers undo `__Host-`.
- Two different values under our name are nobody's session, never "the first wins".
- What a browser would refuse or weaken is refused when the application is built, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from .errors import ConfigError
from .model import Headers, Outcome

SameSite = Literal["Lax", "Strict", "None"]

MOST_HEADER = 8192
"""Bytes of a Cookie header above which a request is refused unread."""
MOST_COOKIE = 4096
MOST_AGE = 34_560_000

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_PREFIXES = ("__Host-Http-", "__Host-", "__Http-", "__Secure-")
_VALUE = re.compile(r"[\x20-\x3a\x3c-\x7e]*").fullmatch


class Ambiguous:
    """The type of AMBIGUOUS: our cookie came with two different values."""


AMBIGUOUS: Final = Ambiguous()


class CookieSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Name and attributes of our cookie; `check` refuses what a browser would refuse.

    `reason` is why SameSite=None is needed; without one it is refused.
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
        if not _TOKEN(self.name):
            yield "the name must be an RFC 9110 token (letters, digits and !#$%&'*+-.^_`|~)"
        prefix = next((p for p in _PREFIXES if self.name.lower().startswith(p.lower())), "")
        if prefix and not self.name.startswith(prefix):
            yield f"browsers treat the name as {prefix} in any case; write it {prefix}{self.name[len(prefix) :]}"
        if prefix and not self.secure:
            yield f"{prefix} needs Secure; set secure=True or choose a name without prefix"
        if prefix.startswith("__Host-") and self.domain is not None:
            yield f"{prefix} forbids Domain (found {self.domain!r}); drop it, or name the cookie __Secure-..."
        if prefix.startswith("__Host-") and self.path != "/":
            yield f"{prefix} needs Path=/ (found {self.path!r})"
        if "Http-" in prefix and not self.http_only:
            yield f"{prefix} needs HttpOnly"
        if self.same_site not in ("Lax", "Strict", "None"):
            yield f"same_site is 'Lax', 'Strict' or 'None' (found {self.same_site!r})"
        if self.same_site == "None" and not self.secure:
            yield "SameSite=None needs Secure"
        if self.same_site == "None" and not self.reason:
            yield "SameSite=None sends the session with every cross-site request; say why with reason='...'"
        if self.partitioned and not self.secure:
            yield "Partitioned needs Secure"
        if not self.http_only:
            yield "a session readable by scripts is stolen by the first injected one; http_only must stay True"
        if not self.path.startswith("/") or not _VALUE(self.path):
            yield f"the path must start with / and hold printable ASCII (found {self.path!r})"
        if self.domain is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", self.domain):
            yield f"the domain must be a host name (found {self.domain!r})"


class CookieWriter:
    """Reads and writes one cookie; the attributes are spelled once."""

    __slots__ = ("_clear", "_joined", "_limit", "_needle", "_prefix", "_suffix", "name")

    def __init__(self, spec: CookieSpec) -> None:
        """Take a checked spec."""
        self.name = spec.name
        name = spec.name.encode("ascii")
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
        self._needle = name + b"="
        self._prefix = name + b"="
        self._suffix = ("; " + "; ".join(parts)).encode("ascii")
        self._clear = self._prefix + self._suffix + b"; Max-Age=0"
        self._joined = spec.name.startswith("__Host-")
        self._limit = MOST_COOKIE

    def find(self, header: bytes) -> bytes | Ambiguous | None:
        """Return our cookie's value in a Cookie header, None if it is not there, or AMBIGUOUS."""
        needle = self._needle
        at = header.find(needle)
        if at < 0:
            return None
        found: bytes | None = None
        while at >= 0:
            end = header.find(b";", at)
            if self._starts_pair(header, at):
                value = header[at + len(needle) : end if end >= 0 else None]
                if self._joined and b"," in value:
                    value = value[: value.find(b",")]
                value = value.strip(b" \t")
                if found is None:
                    found = value
                elif found != value:
                    return AMBIGUOUS
            at = header.find(needle, at + len(needle))
        return found

    def _starts_pair(self, header: bytes, at: int) -> bool:
        if at == 0:
            return True
        before = header[:at].rstrip(b" \t") if header[at - 1] in b" \t" else header[at - 1 : at]
        return not before or before.endswith(b";") or (self._joined and before.endswith(b","))

    def write(self, value: bytes, max_age: float | None = None) -> bytes:
        """Return the Set-Cookie that hands out `value`; without `max_age` (seconds) it dies with the browser."""
        age = b"" if max_age is None else b"; Max-Age=%d" % max(0, min(int(max_age), MOST_AGE))
        if len(self._prefix) + len(value) > self._limit:
            message = f"cookie {self.name!r} would have {len(value)} bytes; browsers keep {self._limit}"
            raise ConfigError(message)
        return self._prefix + value + self._suffix + age

    def clear(self) -> bytes:
        """Return the Set-Cookie that takes the cookie away, with the attributes it was set with."""
        return self._clear


def dress(headers: Headers, outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """Return response headers with the outcome's: Set-Cookie appended, Vary merged, Cache-Control replaced.

    One function for all adapters. RFC 9111 section 7.3: Set-Cookie does not stop a cache, so no-store goes with it.
    """
    if not outcome.cookies and not outcome.vary:
        return list(headers)
    dressed = [pair for pair in headers if not _replaced(pair[0].lower(), outcome)]
    if outcome.vary:
        dressed.append((b"vary", _merged_vary(headers, outcome.vary)))
    if outcome.cookies:
        dressed.append((b"cache-control", b"no-store"))
        dressed.extend((b"set-cookie", cookie) for cookie in outcome.cookies)
    return dressed


def _replaced(name: bytes, outcome: Outcome) -> bool:
    if name == b"vary":
        return bool(outcome.vary)
    return bool(outcome.cookies) and name in (b"cache-control", b"expires", b"pragma")


def _merged_vary(headers: Headers, ours: Iterable[str]) -> bytes:
    present = [part.strip() for name, value in headers if name.lower() == b"vary" for part in value.split(b",")]
    if b"*" in present:
        return b"*"
    known = {part.lower() for part in present}
    return b", ".join(present + [name.encode() for name in ours if name.lower().encode() not in known])
