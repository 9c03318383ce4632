"""What a request can ask the probe to do with its session: acts, ways to look at it, ways to change its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.session import Session


def _logout_then_login(session: Session) -> None:
    session.logout()
    session.login("second")


def _logout_then_flash(session: Session) -> None:
    session.logout()
    session["flashes"] = ["saved"]


def _reset_password(session: Session) -> None:
    session.login("alice")
    session.password_changed()


def _login_and_end_others(session: Session) -> None:
    session.login("alice")
    session.end_others()


def _nested(session: Session) -> None:
    session["nested"]["list"].append(3)


def _overlay(session: Session) -> None:
    session |= {"overlaid": 1}


ACTS: dict[str, Callable[[Session], Any]] = {
    "read": lambda session: session.get("k"),
    "write": lambda session: session.update(k="written"),
    "pop": lambda session: session.pop("k", None),
    "unkeepable": lambda session: session.update(k=object()),
    "login": lambda session: session.login("alice"),
    "login-remember": lambda session: session.login("alice", remember=True),
    "login-others": _login_and_end_others,
    "logout": lambda session: session.logout(),
    "logout-login": _logout_then_login,
    "logout-flash": _logout_then_flash,
    "reset": _reset_password,
    "password-changed": lambda session: session.password_changed(),
    "roles-changed": lambda session: session.roles_changed(),
    "renew": lambda session: session.renew(),
    "end-others": lambda session: session.end_others(),
    "lasting": lambda session: session.lasting(idle=60.0),
    "browser-only": lambda session: session.lasting(browser_only=True),
    "persistent": lambda session: session.lasting(browser_only=False),
    "flash": lambda session: session.setdefault("flashes", []).append("saved"),
    "flashes": lambda session: session.pop("flashes", None),
}
"""What a request can be asked to do with its session."""

LOOKS: dict[str, Callable[[Session], Any]] = {
    "in": lambda session: "k" in session,
    "len": len,
    "bool": bool,
    "get": lambda session: session.get("k"),
    "item": lambda session: dict(session).get("k"),
    "iter": list,
    "items": lambda session: list(session.items()),
    "copy": lambda session: session.copy(),
    "subject": lambda session: session.subject,
    "handle": lambda session: session.handle,
    "level": lambda session: session.level,
    "is_new": lambda session: session.is_new,
    "ended_because": lambda session: session.ended_because,
    "authenticated_at": lambda session: session.authenticated_at,
    "check_csrf": lambda session: session.check_csrf("no token"),
}
"""The ways to look at a session; each makes a response vary by cookie."""

CHANGES: dict[str, Callable[[Session], Any]] = {
    "start": lambda session: session.update(nested={"list": [1, 2]}, gone="soon", same=1),
    "nested": _nested,
    "pop": lambda session: session.pop("gone"),
    "popitem": lambda session: session.popitem(),
    "del": lambda session: session.__delitem__("gone"),
    "setdefault": lambda session: session.setdefault("default", []).append(1),
    "overlay": _overlay,
    "update": lambda session: session.update(same=2),
    "clear": lambda session: session.clear(),
}
"""The ways to change the data of a session."""
