"""What an identity provider tells about its sessions: which of its tokens is believed, and whom it is about.

Two kinds come in, both signed, both decided here by arithmetic on values (the flow waits for keys and store):
- a logout token (OpenID Connect Back-Channel Logout 1.0, errata set 1, section 2.6);
- a security event token (SET, RFC 8417) with CAEP's session-revoked (CAEP 1.0 section 3.1), pushed by RFC 8935.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from .errors import ConfigError
from .jose import Refused, check_algorithms
from .model import Because, Instant, Reply, Request

LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"
REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
MOST_BODY: Final = 12288
"""Bytes of a request that are read: a token, its name, and some room."""
DAY: Final = 86400.0
_MOST_TEXT: Final = 255
_MOST_ALIASES: Final = 16
_INITIATORS: Final = frozenset({"admin", "user", "policy", "system"})

SubjectOf: TypeAlias = Callable[[Mapping[str, Any]], str | None]
"""From a subject identifier (RFC 9493) to a subject of ours, or None: nobody here."""


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenID provider whose logout tokens count: who it is, who we are to it, and how it signs.

    `keys` is its JWKS (an object or JSON), or a function that fetches it. `require_typ`, `require_exp`: only for old
    providers that leave out `typ: logout+jwt`, or `exp`, say False. `most_age`: seconds from `iat` on.
    """

    issuer: str
    audience: str
    keys: Any
    algorithms: Sequence[str] = ("RS256",)
    require_typ: bool = True
    require_exp: bool = True
    most_age: float = 120.0
    leeway: float = 30.0

    def check(self) -> None:
        """Raise ConfigError for what would believe too much."""
        _check_party(self.issuer, self.audience, self.algorithms)


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A transmitter of security events whose session-revoked counts.

    `authorization`: what its Authorization header must say, if that was agreed. `provider`: the issuer whose `sid` an
    opaque session is; by default the transmitter itself. `subject_of`: finds our subject for an e-mail address and
    the like. `wide`: an event about nobody in particular, such as a whole tenant, ends every session of the realm.
    """

    issuer: str
    audience: str
    keys: Any
    algorithms: Sequence[str] = ("RS256",)
    authorization: str | None = None
    provider: str | None = None
    subject_of: SubjectOf | None = None
    wide: bool = False
    most_age: float = DAY
    leeway: float = 30.0

    def check(self) -> None:
        """Raise ConfigError for what would believe too much."""
        _check_party(self.issuer, self.audience, self.algorithms)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whose sessions end: of an issuer's `sid`, its `sub`, or both; of a subject of ours; or everybody's."""

    issuer: str = ""
    sid: str | None = None
    sub: str | None = None
    subject: str | None = None
    everyone: bool = False


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A token that is believed: what to do, once."""

    issuer: str
    jti: str
    because: Because
    targets: tuple[Target, ...]
    before: Instant | None
    detail: dict[str, Any] = {}


def logout_notice(claims: Mapping[str, Any], issuer: Issuer, now: Instant) -> Notice:
    """Return what a logout token with a good signature asks for, or raise Refused (section 2.6)."""
    jti, iat = _common(claims, issuer.issuer, issuer.audience, now, issuer.most_age, issuer.leeway)
    if "exp" in claims or issuer.require_exp:
        exp = _moment(claims, "exp")
        if exp <= now - issuer.leeway:
            raise Refused("invalid_request", "This token has expired.")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT), dict):
        raise Refused("invalid_request", "The events claim has no back-channel logout whose value is an object.")
    if "nonce" in claims:
        raise Refused("invalid_request", "A logout token has no nonce; this may be an ID token.")
    sid, sub = (_text(claims, name) if name in claims else None for name in ("sid", "sub"))
    if sid is None and sub is None:
        raise Refused("invalid_request", "A logout token names a sub, a sid, or both.")
    # a session of the provider does not come back; a subject may have logged in again since
    before = None if sid is not None else min(now, iat + issuer.leeway)
    target = Target(issuer=issuer.issuer, sid=sid, sub=sub)
    return Notice(issuer=issuer.issuer, jti=jti, because="sso_logout", targets=(target,), before=before)


def event_notice(claims: Mapping[str, Any], stream: Stream, now: Instant) -> Notice:
    """Return what a security event with a good signature asks for, or raise Refused; of other events, nothing."""
    jti, iat = _common(claims, stream.issuer, stream.audience, now, stream.most_age, stream.leeway)
    if "exp" in claims or "sub" in claims:
        raise Refused("invalid_request", "A security event token has neither exp nor sub (SSF 1.0).")
    events, subject = claims.get("events"), claims.get("sub_id")
    if not isinstance(events, dict) or len(events) != 1:
        raise Refused("invalid_request", "The events claim holds exactly one event.")
    if not isinstance(subject, dict):
        raise Refused("invalid_request", "A security event token names its subject in sub_id.")
    event = events.get(REVOKED)
    if REVOKED not in events:  # a stream's verification, or an event that was not asked for: heard, nothing to do
        return Notice(issuer=stream.issuer, jti=jti, because="caep", targets=(), before=None)
    if not isinstance(event, dict):
        raise Refused("invalid_request", "The value of an event is an object.")
    before = _moment(event, "event_timestamp") if "event_timestamp" in event else iat
    if not now - stream.most_age <= before <= now + stream.leeway:
        raise Refused("invalid_request", "The event_timestamp is not within the last day, in seconds.")
    initiator = event.get("initiating_entity")
    return Notice(
        issuer=stream.issuer,
        jti=jti,
        because="caep",
        targets=_targets(subject, stream),
        before=min(before, now),
        detail={"initiated_by": initiator} if isinstance(initiator, str) and initiator in _INITIATORS else {},
    )


def _targets(subject: Mapping[str, Any], stream: Stream, depth: int = 0) -> tuple[Target, ...]:
    """Return whom a subject identifier is about (RFC 9493; complex ones: SSF 1.0 section 3.2)."""
    provider = stream.provider or stream.issuer
    kind = subject.get("format")
    if kind == "iss_sub":
        issuer = _text(subject, "iss")
        if issuer not in (stream.issuer, provider):
            raise Refused("access_denied", "This stream does not speak for the issuer of that subject.")
        return (Target(issuer=issuer, sub=_text(subject, "sub")),)
    if kind == "opaque":
        return (Target(issuer=provider, sid=_text(subject, "id")),)
    if kind == "aliases" and depth == 0:
        return _aliases(subject, stream)
    if kind == "complex" and depth == 0:
        return _complex(subject, stream, provider)
    if stream.subject_of is None or not isinstance(kind, str):
        raise Refused("invalid_request", "A subject of this format cannot be processed here.")
    ours = stream.subject_of(subject)
    return () if ours is None else (Target(subject=ours),)


def _aliases(subject: Mapping[str, Any], stream: Stream) -> tuple[Target, ...]:
    """Return whom the identifiers that can be processed are about; they all name one subject, so one is enough."""
    names = subject.get("identifiers")
    found: list[Target] = []
    known = False
    for name in names[:_MOST_ALIASES] if isinstance(names, list) else ():
        try:
            found.extend(_targets(name, stream, 1) if isinstance(name, dict) else ())
            known = known or isinstance(name, dict)
        except Refused:
            continue
    if not known:
        raise Refused("invalid_request", "None of these identifiers can be processed here.")
    return tuple(found)


def _complex(subject: Mapping[str, Any], stream: Stream, provider: str) -> tuple[Target, ...]:
    """Return whom all members of a complex subject fit; of those that we do not keep, everything fits."""
    session, user = subject.get("session"), subject.get("user")
    users: tuple[Target, ...] = ()
    if user is not None:
        if not isinstance(user, dict) or user.get("format") in ("complex", "opaque", "aliases"):
            raise Refused("invalid_request", "The user of this subject cannot be processed here.")
        users = _targets(user, stream, 1)
    if session is not None:
        if not isinstance(session, dict) or session.get("format") != "opaque":
            raise Refused("invalid_request", "The session of this subject cannot be processed here.")
        sid = _text(session, "id")
        if user is None:
            return (Target(issuer=provider, sid=sid),)
        return tuple(Target(issuer=one.issuer or provider, sid=sid, sub=one.sub, subject=one.subject) for one in users)
    if user is not None:
        return users
    if not stream.wide:
        raise Refused("access_denied", "An event about no session and no user is not accepted from this stream.")
    return (Target(everyone=True),)


def _common(
    claims: Mapping[str, Any], issuer: str, audience: str, now: Instant, most_age: float, leeway: float
) -> tuple[str, Instant]:
    """Check what both kinds have in common; return jti and iat."""
    if claims.get("iss") != issuer:
        raise Refused("invalid_issuer", "This issuer is not known here.")
    given = claims.get("aud")
    if audience not in (given if isinstance(given, list) else [given]):
        raise Refused("invalid_audience", "This token is for somebody else.")
    iat = _moment(claims, "iat")
    if iat > now + leeway:
        raise Refused("invalid_request", "The iat of this token lies in the future.")
    if iat < now - most_age - leeway:
        raise Refused("invalid_request", "This token is too old.")
    if "nbf" in claims and _moment(claims, "nbf") > now + leeway:  # RFC 7519 section 4.1.5
        raise Refused("invalid_request", "This token does not count yet.")
    return _text(claims, "jti"), iat


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_TEXT or not value.isprintable():
        raise Refused("invalid_request", f"{name} is missing, or no text of 1 to {_MOST_TEXT} printable characters.")
    return value


def _moment(claims: Mapping[str, Any], name: str) -> Instant:
    """Return a NumericDate; RFC 7519 allows fractions."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise Refused("invalid_request", f"{name} is missing, or no number of seconds since 1970.")
    return float(value)


def _check_party(issuer: str, audience: str, algorithms: Sequence[str]) -> None:
    if not issuer or not audience:
        message = f"issuer and audience are needed (found {issuer!r} and {audience!r}); name both exactly"
        raise ConfigError(message)
    check_algorithms(algorithms)


# -- HTTP ------------------------------------------------------------------------------------------------------------

_NO_STORE: Final = (b"cache-control", b"no-store")
_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")  # of nothing: PEP 3333's validator asks for a type
LOGGED_OUT: Final = Reply(200, (_TEXT, _NO_STORE))
ACCEPTED: Final = Reply(202, (_TEXT, _NO_STORE))
TOO_LARGE: Final = Reply(413, (_TEXT, _NO_STORE))
_ONLY_POST: Final = Reply(405, (_TEXT, _NO_STORE, (b"allow", b"POST")))


def not_even(request: Request, body: bytes) -> Reply | None:
    """Return the answer to a request that is not looked into."""
    if request.method != "POST":
        return _ONLY_POST
    return TOO_LARGE if len(body) > MOST_BODY else None


def logout_token_of(request: Request, body: bytes) -> str:
    """Return the one logout_token of a form (Back-Channel Logout section 2.5)."""
    if _content_type(request) != b"application/x-www-form-urlencoded":
        raise Refused("invalid_request", "A logout token comes as application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(body.decode("ascii"), max_num_fields=16)
    except ValueError:
        raise Refused("invalid_request", "The body is no form of at most 16 fields.") from None
    tokens = [value for name, value in pairs if name == "logout_token"]
    if len(tokens) != 1:
        raise Refused("invalid_request", "The form has exactly one logout_token.")
    return tokens[0]


def event_token_of(request: Request, body: bytes) -> str:
    """Return the security event token that is a request's body (RFC 8935 section 2.1)."""
    if _content_type(request) != b"application/secevent+jwt":
        raise Refused("invalid_request", "A security event token comes as application/secevent+jwt.")
    return body.decode("ascii", "replace").strip()


def check_authorization(request: Request, stream: Stream) -> None:
    """Raise Refused where the stream has a credential that the request does not show."""
    if stream.authorization is None:
        return
    if not hmac.compare_digest(request.header(b"authorization"), stream.authorization.encode()):
        code = "authentication_failed"
        raise Refused(code, "The Authorization header is not the one of this stream.")


def refused_logout(error: Refused) -> Reply:
    """Return the 400 of Back-Channel Logout section 2.8."""
    body = {"error": "invalid_request", "error_description": error.sentence}
    return Reply(400, (_JSON, _NO_STORE), msgspec.json.encode(body))


def failed_logout() -> Reply:
    """Return the same 400 for a logout that failed: section 2.8 has no other, and it must never be a 200."""
    body = {"error": "temporarily_unavailable", "error_description": "Nothing is certain; please send it again."}
    return Reply(400, (_JSON, _NO_STORE), msgspec.json.encode(body))


def refused_event(error: Refused) -> Reply:
    """Return the 400 of RFC 8935 section 2.3."""
    body = {"err": error.code, "description": error.sentence}
    return Reply(400, (_JSON, _NO_STORE, (b"content-language", b"en")), msgspec.json.encode(body))


def failed_event() -> Reply:
    """Return the 503 after which a transmitter tries again (RFC 8935 section 4)."""
    return Reply(503, (_TEXT, _NO_STORE, (b"retry-after", b"10")))


def _content_type(request: Request) -> bytes:
    return request.header(b"content-type").partition(b";")[0].strip().lower()
