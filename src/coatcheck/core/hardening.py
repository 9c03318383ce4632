"""What goes out with an answer to guard it: https only, not framed, not embedded. What the application says counts.

Rules
- A header that is there already stays as it is, alone: the application, or a middleware inside of us, knows better.
- Strict-Transport-Security goes out over TLS only (RFC 6797 section 7.2), whatever made the answer.
- A page that asks for a proof must not be framed by another site, or its user types the proof into what they do not see
  (ASVS 5.0 3.4.6; OWASP Clickjacking Defense). Of two policies both apply: one without frame-ancestors gets ours.
- The login page, where nobody named it, gets X-Frame-Options only: a middleware around us that writes its policy where
  there is none yet would be kept from it by ours, and the page be left with less.
- What looked at a session is for this origin alone where `isolate` says so (ASVS 5.0 3.5.8; Fetch section 3.7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from .model import Headers, Reply, Request
from .settings import Settings, login_page

_HSTS = b"strict-transport-security"
_POLICY = b"content-security-policy"
_RESOURCE = (b"cross-origin-resource-policy", b"same-origin")
UNFRAMED = (_POLICY, b"frame-ancestors 'none'")
_PROOF = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)

_DENY = (b"x-frame-options", b"DENY")
NAMES = frozenset({_HSTS, _POLICY, _RESOURCE[0], _DENY[0], *(name for name, _ in _PROOF)})
"""What a guard may add; only where the whole answer is known is it known whether that is needed."""

A = TypeVar("A", bound="Reply | Headers")


class Hardening:
    """Adds to answers what guards them."""

    __slots__ = ("_hsts", "_isolates", "_login", "_pages", "_secure")

    def __init__(self, settings: Settings, secure: Callable[[Request], bool]) -> None:
        """Take the settings, and who tells whether a request came over TLS."""
        self._secure = secure
        self._hsts = settings.hsts.encode("ascii")
        self._isolates = settings.isolate
        self._pages = frozenset(settings.proof_pages)
        self._login = login_page(settings)

    def hardened(self, request: Request, answer: A, *, private: bool) -> A:
        """Return an answer, or the headers of one, with what is missing; `private`: it looked at the session."""
        if request.kind != "http":
            return answer
        more: list[tuple[bytes, bytes]] = []
        given = answer.headers if isinstance(answer, Reply) else answer
        if self._hsts and self._secure(request):
            more.append((_HSTS, self._hsts))
        if private and self._isolates:
            more.append(_RESOURCE)
        named = request.path in self._pages
        if named:
            more.extend(_PROOF)
        elif request.path == self._login and not _says_who_frames(given):
            more.append(_DENY)
        if more:
            there = {name.lower() for name, _ in given}
            more = [header for header in more if header[0] not in there]
        if named and not _says_who_frames(given):
            more.append(UNFRAMED)
        if not more:
            return answer
        if isinstance(answer, Reply):
            return replace(answer, headers=(*answer.headers, *more))
        return [*answer, *more]  # type: ignore[return-value]


def hardening_of(settings: Settings, secure: Callable[[Request], bool]) -> Hardening | None:
    """Return what guards the answers of an application; None: nothing is to be added to any."""
    if not (settings.hsts or settings.isolate or settings.proof_pages or login_page(settings)):
        return None
    return Hardening(settings, secure)


def _says_who_frames(given: Headers) -> bool:
    return any(name.lower() == _POLICY and b"frame-ancestors" in value.lower() for name, value in given)
