"""What is told to others of sessions that ended here: CAEP's session-revoked, as the claims of a security event token.

Rules (CAEP 1.0 section 3.1; Shared Signals Framework 1.0; RFC 8417; CAEP Interoperability Profile 1.0)
- One event a token, which has neither exp nor sub; `reason_admin` says in words why, and is never empty.
- The subject is complex: the session by its handle, its user by issuer and subject, its tenant; or a tenant alone.
- A session that ended by its clocks, or for its own successor, was not revoked: nothing is told of it.
- Where the visitor was (address, agent) goes to nobody: it is not needed to end a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .model import Event
from .notices import REVOKED

_REVOKED: Final[Mapping[str, tuple[str, str]]] = {
    "logout": ("user", "The user logged out."),
    "owner": ("user", "The user ended this session from another one."),
    "operator": ("admin", "An operator ended this session."),
    "account_disabled": ("admin", "The account was disabled."),
    "role_change": ("admin", "The roles of the account changed."),
    "factor_change": ("user", "A password or another factor of the account changed."),
    "epoch": ("admin", "All sessions of a group to which this one belongs were ended."),
    "theft": ("policy", "A superseded secret of this session was presented: it was copied."),
    "limit": ("policy", "The account has more sessions than it may have; this was the oldest."),
    "context": ("policy", "The session was used from a place that its policy does not accept."),
    "unbound": ("policy", "The session was not bound to its device in time."),
    "sso_logout": ("system", "The identity provider ended the session that this one stands on."),
    "caep": ("system", "Another party said that this session was revoked."),
    "key_rotation": ("system", "The key that made this session no longer counts."),
}
_BY_POLICY: Final = ("policy", "A policy of the application ended this session.")
_QUIET: Final = frozenset({"idle", "absolute", "superseded", "replaced", "moved"})
_ENDS: Final[Mapping[str, str | None]] = {
    **dict.fromkeys(("session_revoked", "session_expired", "sessions_revoked")),
    "session_logout": "logout",
    "excess_sessions_exceeded": "limit",
    "session_token_reuse": "theft",
}
"""The events that may be an end, and why; None: their detail says."""


def reason(event: Event) -> str | None:
    """Return why a session was revoked, or None: this event is no revocation that anybody else need hear of."""
    if event.name not in _ENDS or event.noise:
        return None
    detail = event.detail
    if event.name == "session_token_reuse" and not detail.get("ended"):
        return None
    if event.name == "sessions_revoked" and "tenant" not in detail:
        return None  # of a subject: each session has an event of its own; of everybody: no subject names them
    if event.name != "sessions_revoked" and event.handle is None:
        return None
    why = _ENDS[event.name] or detail.get("reason") or detail.get("because")
    return None if why in _QUIET else str(why or "policy")


def revoked(event: Event, *, issuer: str, audience: str, jti: str, now: float) -> dict[str, Any] | None:
    """Return the claims of the token that tells of an event, or None: it is no revocation."""
    why = reason(event)
    if why is None:
        return None
    who, sentence = _REVOKED.get(why, _BY_POLICY)
    told = {
        "event_timestamp": int(event.at),
        "initiating_entity": who,
        "reason_admin": {"en": f"{sentence} ({why})"},
        "reason_user": {"en": "You were logged out; please log in again."},
    }
    return {
        "iss": issuer,
        "jti": jti,
        "iat": int(now),
        "aud": audience,
        "sub_id": _subject(event, issuer),
        "events": {REVOKED: told},
    }


def _subject(event: Event, issuer: str) -> dict[str, Any]:
    """Return whom a revocation is about (SSF 1.0 section 3.2, "complex subjects")."""
    subject: dict[str, Any] = {"format": "complex"}
    if event.handle is not None:
        subject["session"] = {"format": "opaque", "id": event.handle}
    if event.subject is not None:
        subject["user"] = {"format": "iss_sub", "iss": issuer, "sub": event.subject}
    if event.handle is None and event.detail.get("tenant") is not None:
        subject["tenant"] = {"format": "opaque", "id": event.detail["tenant"]}
    return subject
