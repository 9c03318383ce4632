"""Asking for proof again: where a login leads back to, what it interrupted, and which factors make which level.

Rules (M5; D60)
- Only what is safe to ask for goes on by itself, and only to a path of this site. Anything else is shown again, for
  the user to confirm: nothing that was sent is stored to be sent by us.
- What was interrupted is noted in the session, one at a time, for five minutes: subject, method, target and a digest
  of what was to be done. It moves into the login of the same subject, and into no other.
- A note permits nothing by itself. It counts where the *record* says that its subject authenticated after the note was
  made, and not long ago; then it is taken out by a commit of its own. So a step-up is good for what was asked, once.
"""

from __future__ import annotations

import difflib
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

from .errors import DataError
from .model import Instant, Level, Record, Request

KEY: Final = "coatcheck_step_up"
"""Under which key of the session's data the note of what was interrupted lies."""
FOR: Final = 300.0
"""Seconds for which it counts, and for which a proof counts that was given for it."""
MOST_TARGET: Final = 2048
"""Characters of a path that anybody is sent to."""

SAFE: Final = frozenset({"GET", "HEAD"})
"""What goes on by itself: methods that only look (RFC 9110 section 9.2.1), less those that no page begins."""

Of: TypeAlias = Mapping[str, Any] | bytes
"""What is to be done: the fields that matter, which are shown again; or the request's body, which is not kept."""

_IN_LOCATION: Final = "/?&=%:@!$'()*+,;~-._#"
_IN_PATH: Final = "/&=:@!$'()*+,;~-._"
_SKEW: Final = 5.0
"""Seconds by which the clocks of two nodes may differ."""


class GoTo(msgspec.Struct, frozen=True):
    """Go on to `target`, a path of this site: send the browser there, with status 303."""

    target: str


class AskAgain(msgspec.Struct, frozen=True, kw_only=True):
    """Show what was interrupted, and have the user confirm it by a form of yours; until then nothing is done.

    `method` and `target` say where it was sent, `shown` what with. After `until` it is forgotten.
    """

    method: str
    target: str
    shown: dict[str, Any]
    until: Instant


Resume: TypeAlias = GoTo | AskAgain


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """What was interrupted, as it lies in the session's data."""

    subject: str
    method: str
    target: str
    digest: str
    asked_at: float
    proved_at: float
    shown: dict[str, Any] = {}


# -- where to go -------------------------------------------------------------------------------------------------------


def own_target(wanted: str | None) -> str | None:
    r"""Return a path of this site, spelled as a Location header wants it, or None for anything else.

    Browsers read `\` as `/`, and drop tabs and line breaks wherever they stand (WHATWG URL): `/<tab>/evil.example` is
    another host, like `//evil.example`. So only printable text counts that begins with one slash and has no backslash.
    """
    if not isinstance(wanted, str) or not 0 < len(wanted) <= MOST_TARGET:
        return None
    if wanted[0] != "/" or wanted[1:2] == "/" or "\\" in wanted or not wanted.isprintable():
        return None
    return quote(wanted, safe=_IN_LOCATION)


def target_of(request: Request) -> str | None:
    """Return the path and query of a request, as far as anybody may be sent there."""
    if own_target(request.path) is None:
        return None
    path = quote(request.path, safe=_IN_PATH)  # what was decoded is escaped again: %3F begins no query
    return own_target(f"{path}?{request.query}" if request.query else path)


# -- what was interrupted ----------------------------------------------------------------------------------------------


def noted(record: Record, request: Request, of: Of, now: Instant, *, grants: bool) -> dict[str, Any] | None:
    """Return the note of an interrupted request; None: it may not be asked for again.

    `grants`: what was asked for needs a proof of its own. Otherwise the note only tells what to show again.
    """
    target = target_of(request)
    if target is None or record.subject is None:
        return None
    return {
        "subject": record.subject,
        "method": request.method,
        "target": target,
        "digest": _digest(request, of) if grants else "",
        "asked_at": now,
        "proved_at": record.authenticated_at or 0.0,
        "shown": {} if isinstance(of, bytes) else dict(of),
    }


def resumed(found: object, subject: str | None, now: Instant) -> Resume | None:
    """Return what a login interrupted, by the session's note of it; None: nothing, or not this subject's."""
    note = _note(found, now)
    if note is None or note.subject != subject:
        return None
    if note.method in SAFE:
        return GoTo(note.target)
    return AskAgain(method=note.method, target=note.target, shown=note.shown, until=note.asked_at + FOR)


def permits(found: object, record: Record, request: Request, of: Of, now: Instant) -> bool:
    """Tell whether a subject authenticated for this very request: since it was noted, and not long ago."""
    note = _note(found, now)
    if note is None or record.authenticated_at is None or record.level <= Level.REMEMBERED:
        return False
    proved_since = note.proved_at < record.authenticated_at and -_SKEW <= now - record.authenticated_at <= FOR
    return note.subject == record.subject and proved_since and note.digest == _digest(request, of)


def is_done(found: object, request: Request) -> bool:
    """Tell whether a note that grants nothing is of a request to where this one goes, which was let in."""
    if not isinstance(found, dict) or found.get("digest") != "":
        return False
    return (found.get("method"), found.get("target")) == (request.method, target_of(request))


def _note(found: object, now: Instant) -> _Note | None:
    """Return a note that still counts."""
    try:
        note = msgspec.convert(found, _Note)
    except msgspec.ValidationError:  # the application, or an older release, has something else there
        return None
    return note if -_SKEW <= now - note.asked_at <= FOR and own_target(note.target) is not None else None


def _digest(request: Request, of: Of) -> str:
    """Return what tells one thing to do from any other: method, target, and fields or body."""
    what = ["body", sha256(of).hexdigest()] if isinstance(of, bytes) else ["fields", dict(of)]
    try:
        said = msgspec.json.encode([request.method, request.path, request.query, what], order="deterministic")
    except (TypeError, ValueError) as error:
        message = f"what a step-up is for is a mapping of names and plain values, or the body as bytes ({error})"
        raise DataError(message, key="of", found=type(of).__qualname__) from error
    return b64encode(sha256(said).digest()).decode()


# -- factors -----------------------------------------------------------------------------------------------------------

_KNOWN: Final = frozenset({"pwd", "pin"})
_OWNED: Final = frozenset({"otp", "sms", "tel", "swk", "hwk", "sc"})
_INHERENT: Final = frozenset({"face", "fpt", "iris", "retina", "vbm"})
_NONE: Final = frozenset({"geo", "kba", "mca", "mfa", "rba", "user", "wia"})
METHODS: Final = _KNOWN | _OWNED | _INHERENT | _NONE
"""The names of RFC 8176 section 2. What only says how an authentication went (`geo`, `user` ...) is no factor, and
neither are questions about one's life (`kba`: NIST SP 800-63B-4 section 3.1.1 forbids them)."""


def level_of(methods: tuple[str, ...]) -> Level:
    """Return the level that methods make together: AAL2 is something owned, with something known or inherent.

    A biometric is never one without a device (NIST SP 800-63B-4 sections 2.2.1, 3.2.3). AAL3 also needs resistance to
    phishing and a key that cannot be exported (2.3.1), which no name tells: only the application can say that.
    """
    used = {*methods}
    two = bool(used & _OWNED) and bool(used & (_KNOWN | _INHERENT))
    return Level.AAL2 if two or "mfa" in used else Level.AAL1


def check_methods(methods: tuple[str, ...], level: int | None, together: tuple[str, ...]) -> None:
    """Raise DataError for a method that does not exist, or a level that these methods cannot reach (TMO-07)."""
    for one in methods:
        if one not in METHODS:
            close = difflib.get_close_matches(str(one), METHODS, 1)
            known = f"did you mean {close[0]!r}?" if close else f"they are {', '.join(sorted(METHODS))}"
            message = f"{one!r:.40} is no authentication method of RFC 8176; {known}"
            raise DataError(message, key="methods", found=type(one).__qualname__)
    if not methods:
        message = "stepped_up names at least one method, whose proof you have just checked: stepped_up('otp')"
        raise DataError(message, key="methods", found="nothing")
    most = level_of(together)
    if most is Level.AAL2 and {*together} & {"hwk", "sc", "mfa"}:
        most = Level.AAL3
    if level is not None and level > most and all(one in METHODS for one in together):
        message = (
            f"{' and '.join(together)} make {most.name} at most (found level {int(level)}); "
            "a session is never surer than the authentication behind it"
        )
        raise DataError(message, key="level", found=type(level).__qualname__)
