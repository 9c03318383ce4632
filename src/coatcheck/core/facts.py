"""What is worth remembering, as events: facts, each written with the change that earns it, named as OWASP names them.

A fact names the handle, the subject and the client; it never holds a secret (OWASP Logging Vocabulary; standards: the
maps to OCSF and ECS start from these names).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from .model import Client, Event, Instant, Record, Signal

Severity: TypeAlias = Literal["info", "warning", "critical"]

_SEVERE: dict[str, Severity] = {
    "session_token_reuse": "critical",
    "session_use_after_expire": "critical",
    "session_unreadable": "warning",
    "session_write_dropped": "warning",
    "excess_sessions_exceeded": "warning",
    "csrf_denied": "warning",
    "session_cookie_ambiguous": "warning",
    "session_unknown_token": "warning",
    "session_bruteforce_suspected": "warning",
    "session_guess_refused": "warning",
    "session_anonymous_refused": "warning",
    "session_plain_http": "warning",
    "session_embedding_refused": "warning",
    "authn_new_device": "warning",
    "store_restored": "warning",
    "session_backend_error": "warning",
    "session_internal_error": "critical",
    "dbsc_binding_missing": "warning",
    "dbsc_rebind_refused": "warning",
    "dbsc_registration_refused": "warning",
}

_SEVERE_ANSWERS: dict[str, Severity] = {"step_up": "warning", "end": "critical"}


def severity(event: Event) -> Severity:
    """Return how loudly an event speaks: replays and uses after the end are critical, unless they are expected."""
    if event.detail.get("expected") or event.detail.get("first") or event.detail.get("kind") == "straggler":
        return "info"
    if event.detail.get("kind") == "older":  # a sealed cookie: answers in another order leave one behind, too
        return "warning"
    if event.detail.get("circuit") == "open":
        return "critical"
    if event.name == "session_context_changed":
        return _SEVERE_ANSWERS.get(event.detail.get("action", ""), "info")
    return _SEVERE.get(event.name, "info")


def about(name: str, record: Record, now: Instant, client: Client | None, **detail: Any) -> Event:
    """Return an event about a record."""
    return Event(
        name=name,
        at=now,
        realm=record.realm,
        handle=record.handle,
        subject=record.subject,
        client=client,
        detail=detail,
    )


def created(record: Record, now: Instant, instead_of: Record | None) -> tuple[Event, ...]:
    """Return the facts of a new record: that it exists and, with a subject, that somebody authenticated."""
    before = {} if instead_of is None else {"instead_of": instead_of.handle}
    made = about("session_created", record, now, record.client, persistent=record.persistent, **before)
    if record.subject is None:
        return (made,)
    proof = about("authn_login_success", record, now, record.client, methods=list(record.methods), level=record.level)
    return (made, proof)


def reuse(record: Record, now: Instant, client: Client, kind: str) -> Event:
    """Return the fact that a superseded token was presented, with both contexts: whose it was now, and the holder's.

    The holder is who was handed the secret last, or logged in; which of the two is the thief, nobody can tell.
    """
    known = record.seen_from or record.client or Client()
    age = {} if record.used_at is None else {"superseded_for": round(now - record.used_at, 3)}
    return about(
        "session_token_reuse",
        record,
        now,
        client,
        kind=kind,
        known_address=known.address,
        known_agent=known.agent,
        **age,
    )


def context_changed(record: Record, now: Instant, client: Client, signals: Sequence[Signal], action: str) -> Event:
    """Return the fact that a session is presented from elsewhere than its login, and what was done about it."""
    known = record.client or Client()
    return about(
        "session_context_changed",
        record,
        now,
        client,
        kind="+".join(sorted(signal.name for signal in signals)),
        score=min(100, sum(signal.score for signal in signals)),
        action=action,
        reasons=[signal.reason for signal in signals],
        known_address=known.address,
        known_agent=known.agent,
    )


def used_after_end(record: Record, now: Instant, client: Client) -> Event:
    """Return the fact that an ended session's token was presented; expected from parallel requests just after."""
    age = now - (record.ended_at or now)
    expected = record.ended_because in ("logout", "superseded", "replaced") and age < 60.0
    return about(
        "session_use_after_expire",
        record,
        now,
        client,
        because=record.ended_because,
        age=round(age, 3),
        expected=expected,
    )


def line(event: Event) -> str:
    """Return an event as one line of plain text: what came from outside is escaped, so that it cannot forge a line."""
    client = event.client or Client()
    shown = {"handle": event.handle, "subject": event.subject, "address": client.address, **event.detail}
    if event.trace is not None and event.trace.request_id is not None:
        shown["request"] = event.trace.request_id
    words = [f"{name}={_escaped(value)}" for name, value in shown.items() if value is not None]
    return " ".join([event.name, *words])


def _escaped(value: Any) -> str:
    text = str(value)
    if text.isascii() and text.isprintable() and " " not in text and "=" not in text:
        return text
    return ascii(text)
