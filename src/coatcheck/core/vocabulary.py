"""Every event that is written: its name, how loud it may be, what its detail holds. Nothing else is told to anybody.

It is an inventory (ASVS 5.0 16.1.1), printed by `coatcheck policy events`. A fact is one thing that happened; noise is
a summary of what anybody on the network can cause, once a minute (core/noise.py). Beside its detail, every event says
when, which realm, on which machine, and, where there are any, session, subject, address, agent, and the request's id,
method and path. The failures of the store and of ourselves are told at once, and kept in sum: of both kinds, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

STORE, LOGGER, LISTENER = "store", "logger", "listener"


class Sink(msgspec.Struct, frozen=True, kw_only=True):
    """Where events go: what it is, its name, and which events it gets."""

    kind: str
    name: str
    gets: str


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """An event: how loud, the loudest last; what its detail may hold; what it says; whether it sums noise up."""

    levels: tuple[str, ...]
    fields: tuple[str, ...]
    says: str
    noise: bool = False


SUMMARY: Final = ("count", "since", "networks", "last")
"""What a summary of noise holds; `last` is the last request: id, method, path without query, agent, why refused."""


def _fact(says: str, *fields: str, levels: tuple[str, ...] = ("info",)) -> Kind:
    return Kind(levels=levels, fields=fields, says=says)


def _noise(says: str, *, level: str = "info") -> Kind:
    return Kind(levels=(level,), fields=SUMMARY, says=says, noise=True)


_WARNING, _CRITICAL = ("warning",), ("critical",)
_KNOWN = ("known_address", "known_agent")

FACTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "session_created": _fact("a session began", "persistent", "instead_of"),
        "authn_login_success": _fact("somebody logged in", "methods", "level"),
        "authn_new_device": _fact(
            "the login came from a browser that is new to its subject", "first", levels=("info", "warning")
        ),
        "session_renewed": _fact("the secret was renewed", "instead_of"),
        "session_logout": _fact("somebody logged out"),
        "session_expired": _fact("a session ended by a clock, a policy or a login", "reason"),
        "session_revoked": _fact("somebody ended a session from outside", "reason", "because", "actor"),
        "sessions_revoked": _fact("somebody ended many sessions from outside", "reason", "actor", "tenant", "before"),
        "session_converted": _fact("a session of another library became one of ours", "source", "issued_at"),
        "session_token_reuse": _fact(
            "a superseded token was presented",
            *("kind", "superseded_for", "ended", *_KNOWN),
            levels=("info", "warning", "critical"),
        ),
        "session_use_after_expire": _fact(
            "the token of an ended session was presented",
            *("because", "age", "expected", "kind"),
            levels=("info", "critical"),
        ),
        "session_context_changed": _fact(
            "a session was presented from elsewhere than its login",
            *("kind", "score", "action", "reasons", *_KNOWN),
            levels=("info", "warning", "critical"),
        ),
        "session_write_dropped": _fact("a session ended while a request wrote to it", "because", levels=_WARNING),
        "session_unreadable": _fact("what a session holds could not be read", "why", levels=_WARNING),
        "session_from_the_future": _fact("a session is younger than this clock says"),
        "excess_sessions_exceeded": _fact(
            "a session ended because its subject has too many", *("because", "most", "by", *_KNOWN), levels=_WARNING
        ),
        "dbsc_bound": _fact("a session was bound to its device", "alg", "other_client"),
        "dbsc_skipped": _fact("a browser could not prove its device", "kind"),
        "dbsc_binding_missing": _fact("a bound session came without its device", "kind", levels=_WARNING),
        "dbsc_rebind_refused": _fact("a second device wanted a session", "why", levels=_WARNING),
        "dbsc_registration_refused": _fact("a device could not be bound", "why", *SUMMARY, levels=_WARNING),
        "identity_provider_notice": _fact(
            "an identity provider ended sessions", "issuer", "because", "sessions", "initiated_by"
        ),
        "store_restored": _fact("an operator said that the store was restored", "actor", "before", levels=_WARNING),
        "key_made": _fact("an operator made a key", "key", "actor"),
        "key_revoked": _fact("an operator revoked a key", "key", "actor"),
        "audit_sealed": _fact(
            "the facts of a stretch of time were sealed", "number", "since", "until", "count", "facts", "before", "mac"
        ),
        "session_backend_error": _fact(
            "the store, or what else a session hangs on, failed",
            *("error", "kind", "circuit", "pause", *SUMMARY),
            levels=("warning", "critical"),
        ),
        "session_backend_recovered": _fact("the store answers again, after it was left alone", "down_for"),
        "session_internal_error": _fact(
            "a fault of coatcheck's own, or of a rule of the application's", "kind", *SUMMARY, levels=_CRITICAL
        ),
    }
)
"""What happened, each once."""

NOISE: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "csrf_denied": _noise("another site caused a request", level="warning"),
        "session_plain_http": _noise("a request came over plain http", level="warning"),
        "session_embedding_refused": _noise("another site embedded what is private", level="warning"),
        "session_unknown_token": _noise("a token opens nothing", level="warning"),
        "session_garbage_token": _noise("a token names a session and does not open it"),
        "session_malformed_token": _noise("a cookie of our name is no token"),
        "session_cookie_ambiguous": _noise("two cookies of our name came", level="warning"),
        "session_cookie_oversize": _noise("a Cookie header was too large"),
        "session_legacy_refused": _noise("a token of another library does not count"),
        "session_bruteforce_suspected": _noise("a network guesses tokens", level="warning"),
        "session_guess_refused": _noise("a guess was answered with 429", level="warning"),
        "session_anonymous_refused": _noise("a network began too many sessions", level="warning"),
        "session_sockets_refused": _noise("a session has too many open sockets"),
        "dbsc_unknown_session": _noise("a browser would refresh what is not there"),
        "dbsc_challenge_stale": _noise("a browser proved an old challenge"),
        "dbsc_signature_invalid": _noise("a proof of a device is none"),
        "logout_token_refused": _noise("a logout token does not count"),
        "security_event_refused": _noise("a security event does not count"),
    }
)
"""What anybody can cause, each a summary of a minute; dbsc_registration_refused is of both kinds."""


def sinks(listeners: Iterable[object]) -> list[Sink]:
    """Return where the events of an application go, which has these listeners; they go nowhere else."""
    told = [
        Sink(kind=LISTENER, name=name_of(one), gets="each that was committed, and says itself what it passes on")
        for one in listeners
    ]
    return [
        Sink(kind=STORE, name="the session store", gets="each, with the change that it is about"),
        Sink(kind=LOGGER, name="coatcheck", gets="each that was committed, as a line without a secret"),
        *told,
    ]


def name_of(listener: object) -> str:
    """Return what a listener is called."""
    kind = type(listener)
    name: str = getattr(listener, "__qualname__", kind.__qualname__)
    return f"{getattr(listener, '__module__', None) or kind.__module__}.{name}"
