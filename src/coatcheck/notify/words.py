"""What an event is called to people: a headline, and what they may want to know of it, in plain text."""

from __future__ import annotations

from datetime import UTC, datetime

from ..core.model import Client, Event

_HEADLINES = {
    "authn_login_success": "You logged in",
    "authn_new_device": "Somebody logged in to your account from a browser that is new to us",
    "session_logout": "You logged out",
    "session_expired": "A session of yours has ended",
    "session_token_reuse": "An old copy of your session was used",
    "session_use_after_expire": "A session of yours that had ended was used again",
    "session_context_changed": "Your session was used from a changed place or browser",
    "excess_sessions_exceeded": "You are logged in on too many devices",
    "dbsc_bound": "Your session was bound to a device",
    "dbsc_binding_missing": "Your session was used without the device that it is bound to",
    "dbsc_rebind_refused": "Another device tried to take over your session",
    "dbsc_registration_refused": "A device could not be bound to your session",
}
_SHOWN = ("because", "reason", "reasons", "kind", "action", "score", "count")
_MOST = 300


def headline(event: Event) -> str:
    """Return what happened, in one line."""
    return _HEADLINES.get(event.name, event.name.replace("_", " "))


def text(event: Event) -> str:
    """Return what happened, when, from where and, where it is known, from where the session was used before."""
    client = event.client or Client()
    when = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    rows = [
        ("when", when),
        ("account", event.subject),
        ("from", client.address),
        ("browser", client.agent),
        ("known from", event.detail.get("known_address")),
        ("known browser", event.detail.get("known_agent")),
        *((name, event.detail.get(name)) for name in _SHOWN),
        ("session", event.handle),
    ]
    told = [f"{name}: {_plain(value)}" for name, value in rows if value not in (None, "", [], ())]
    return "\n".join([f"{headline(event)}.", "", *told, ""])


def _plain(value: object) -> str:
    """Return a value in one line that cannot look like another: what came from outside is only shown."""
    shown = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "".join(character if character.isprintable() else "\ufffd" for character in shown[:_MOST])
