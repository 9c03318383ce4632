"""Events in the words of others: plain JSON, OWASP's vocabulary, OCSF's authentication class, Elastic's common schema.

Each is a mapping of values that json.dumps turns into one line: what came from outside is a JSON string there, so it
cannot forge a line (CWE-117). No event holds a secret, and none is made here: a session is named by its handle.

Sources: OWASP Logging Vocabulary cheat sheet; OCSF 1.x, class 3002 "Authentication"; Elastic Common Schema 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from . import facts
from .model import Client, Event, Instant, Trace

Form: TypeAlias = Literal["plain", "owasp", "ocsf", "ecs"]

_BEGINS: Final = frozenset({"authn_login_success"})
_ENDS: Final = frozenset({"session_logout", "session_expired", "session_revoked", "sessions_revoked"})
_REFUSES: Final = frozenset(
    {
        *("csrf_denied", "excess_sessions_exceeded", "session_token_reuse", "session_use_after_expire"),
        *("session_unknown_token", "session_garbage_token", "session_malformed_token", "session_cookie_ambiguous"),
        *("session_cookie_oversize", "session_from_the_future", "session_unreadable", "session_legacy_refused"),
        *("dbsc_binding_missing", "dbsc_rebind_refused", "dbsc_registration_refused", "dbsc_signature_invalid"),
        *("session_plain_http", "session_embedding_refused"),
        *("dbsc_challenge_stale", "dbsc_unknown_session", "logout_token_refused"),
        *("session_backend_error", "session_internal_error"),
    }
)

_OWASP: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "authn_login_success": ("authn_login_success", ("subject",), "INFO"),
    "csrf_denied": ("malicious_csrf", ("address", "agent"), "CRITICAL"),
    "excess_sessions_exceeded": ("excess_sessions_exceeded", ("subject",), "WARN"),
    "session_created": ("session_created", ("subject",), "INFO"),
    "session_renewed": ("session_renewed", ("subject",), "INFO"),
    "session_expired": ("session_expired", ("subject", "reason"), "INFO"),
    "session_revoked": ("session_expired", ("subject", "reason"), "INFO"),
    "sessions_revoked": ("session_expired", ("subject", "reason"), "INFO"),
    "session_logout": ("session_expired", ("subject", "logout"), "INFO"),
    "session_use_after_expire": ("session_use_after_expire", ("subject",), "CRITICAL"),
    "session_token_reuse": ("authn_token_reuse", ("subject", "handle"), "CRITICAL"),
}
"""Our names, the vocabulary's, its arguments, and the level that it asks for."""

_LEVELS: Final = {"info": "INFO", "warning": "WARN", "critical": "CRITICAL"}
_SEVERITY_ID: Final = {"info": 1, "warning": 3, "critical": 5}


def iso(at: Instant) -> str:
    """Return a moment in UTC as ISO 8601 writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(event: Event) -> dict[str, Any]:
    """Return an event as it is: when, what, who, where from, in which request, how loud, and its details."""
    client, trace = event.client or Client(), event.trace or Trace()
    return {
        "time": iso(event.at),
        "event": event.name,
        "level": facts.severity(event),
        "realm": event.realm,
        "session": event.handle,
        "user": event.subject,
        "ip": client.address,
        "user_agent": client.agent,
        "request_id": trace.request_id,
        "method": trace.method,
        "path": trace.path,
        "node": trace.node,
        "noise": event.noise,
        "detail": dict(event.detail),
    }


def owasp(event: Event) -> dict[str, Any]:
    """Return an event as OWASP's vocabulary has it: "name:argument,argument" and the level that it documents.

    A name that the vocabulary has no word for keeps our own.
    """
    name, arguments, level = _OWASP.get(event.name, (event.name, ("subject",), _LEVELS[facts.severity(event)]))
    if event.detail.get("expected"):  # a request that was under way at the logout
        level = "INFO"
    client, trace = event.client or Client(), event.trace or Trace()
    said = {
        "subject": event.subject,
        "handle": event.handle,
        "reason": event.detail.get("reason") or event.detail.get("because"),
        "logout": "logout",
        "address": client.address,
        "agent": client.agent,
    }
    words = [_argument(said[one]) for one in arguments if said[one] is not None]
    return {
        "datetime": iso(event.at),
        "appid": f"coatcheck.{event.realm}",
        "event": f"{name}:{','.join(words)}" if words else name,
        "level": level,
        "description": facts.line(event),
        "useragent": client.agent,
        "source_ip": client.address,
        "hostname": trace.node,
        "request_uri": trace.path,
        "request_method": trace.method,
        "request_id": trace.request_id,
    }


def _argument(value: Any) -> str:
    """Return an argument in which nothing can be taken for the separator of another one."""
    return str(value).replace("\\", "\\\\").replace(",", "\\,")


def ocsf(event: Event) -> dict[str, Any]:
    """Return an event of OCSF's class 3002, Authentication: Logon is 1, Logoff 2, everything else 99."""
    activity = 1 if event.name in _BEGINS else 2 if event.name in _ENDS else 99
    client, detail, trace = event.client or Client(), event.detail, event.trace or Trace()
    session: dict[str, Any] = {"uid": event.handle, "issuer": event.realm}
    if activity == 2:
        session["expiration_reason"] = detail.get("reason") or detail.get("because") or "logout"
        session["expiration_time"] = int(event.at * 1000)
    if activity == 1:
        session["created_time"] = int(event.at * 1000)
        session["is_mfa"] = len(detail.get("methods", ())) > 1
    return {
        "activity_id": activity,
        "activity_name": {1: "Logon", 2: "Logoff", 99: event.name}[activity],
        "category_uid": 3,
        "class_uid": 3002,
        "type_uid": 300200 + activity,
        "time": int(event.at * 1000),
        "severity_id": _SEVERITY_ID[facts.severity(event)],
        "status_id": 2 if event.name in _REFUSES else 1,
        "message": facts.line(event),
        "metadata": {"version": "1.4.0", "product": {"name": "coatcheck", "vendor_name": "coatcheck"}},
        "service": {"name": event.realm},
        "user": {"uid": event.subject or "", "type_id": 1 if event.subject else 0},
        "session": session,
        "src_endpoint": {"ip": client.address},
        "http_request": {
            "user_agent": client.agent,
            "uid": trace.request_id,
            "http_method": trace.method,
            "url": {"path": trace.path},
        },
        "device": {"hostname": trace.node, "type_id": 0},
        "unmapped": _plain(detail),
    }


def ecs(event: Event) -> dict[str, Any]:
    """Return an event in Elastic's common schema; the handle is in a field of our own, since ECS has none for it."""
    begins, ends = event.name == "session_created", event.name in _ENDS
    category = "authentication" if event.name.startswith("authn_") else "session"
    kind = "start" if begins or event.name in _BEGINS else "end" if ends else "info"
    client, trace = event.client or Client(), event.trace or Trace()
    return {
        "@timestamp": iso(event.at),
        "ecs": {"version": "9.0.0"},
        "event": {
            "kind": "event",
            "category": [category],
            "type": [kind],
            "action": event.name,
            "outcome": "failure" if event.name in _REFUSES else "success",
            "reason": event.detail.get("reason") or event.detail.get("because"),
        },
        "log": {"level": facts.severity(event)},
        "message": facts.line(event),
        "service": {"name": event.realm},
        "source": {"ip": client.address},
        "user": {"id": event.subject},
        "user_agent": {"original": client.agent},
        "http": {"request": {"id": trace.request_id, "method": trace.method}},
        "url": {"path": trace.path},
        "host": {"name": trace.node},
        "coatcheck": {"session": event.handle, "noise": event.noise, "detail": _plain(event.detail)},
    }


def _plain(detail: Mapping[str, Any]) -> Any:
    return msgspec.to_builtins(dict(detail), enc_hook=repr)


FORMS: Final[Mapping[Form, Callable[[Event], dict[str, Any]]]] = {
    "plain": plain,
    "owasp": owasp,
    "ocsf": ocsf,
    "ecs": ecs,
}
"""The forms by their names."""


def line(event: Event, form: Form = "plain") -> str:
    """Return an event as one line of JSON, in the form that is asked for."""
    told = FORMS[form](event)
    return msgspec.json.encode(told, enc_hook=repr).decode().replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
