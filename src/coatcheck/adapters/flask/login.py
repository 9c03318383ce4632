"""Flask-Login, where it is installed: its login, logout and "remember me" become ours, by the signals it sends."""

from __future__ import annotations

from typing import Any

import flask

from ...core.model import Level
from .mapping import FlaskSession, session

_LOGIN_KEYS = ("_user_id", "_fresh", "_id")


def follow_flask_login(app: flask.Flask) -> None:
    """Translate Flask-Login's acts, where it is installed, by the signals that it sends after them."""
    try:
        import flask_login  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return
    flask_login.user_logged_in.connect(_logged_in, app)
    flask_login.user_login_confirmed.connect(_logged_in, app)
    flask_login.user_loaded_from_cookie.connect(_loaded_from_cookie, app)
    flask_login.user_logged_out.connect(_logged_out, app)
    flask_login.session_protected.connect(_protected, app)


def _logged_in(_app: flask.Flask, **_: Any) -> None:
    if "_user_id" in session:
        follow_login(session)


def follow_login(session: FlaskSession, *, remember: bool | None = None) -> None:
    """Log in whom the data names; "remember me" becomes our own, which a revocation ends, and not a cookie beside it.

    Until our login counts, the data names nobody: a refusal must not leave it behind.
    """
    named = {key: session.pop(key) for key in _LOGIN_KEYS if key in session}
    subject = str(named["_user_id"])
    if session.pop("_remember", None) == "set":
        remember = True
    seconds = session.pop("_remember_seconds", None)
    fresh = bool(named.get("_fresh"))
    if session.visit.login is None or session.subject != subject:
        known = session.subject == subject and session.visit.record is not None
        if not known or fresh:
            level = max(Level.AAL1, session.level if known else 0) if fresh else Level.REMEMBERED
            session.login(subject, methods=(), level=level, remember=remember)
    if remember and seconds is not None:
        session.lasting(until=session.visit.arrived + seconds)
    session.update(named)


def _loaded_from_cookie(_app: flask.Flask, **_: Any) -> None:
    """Take a remember cookie of Flask-Login's for a remembered session of ours, once, and take the cookie away."""
    if session.settled:
        for key in _LOGIN_KEYS:
            session.pop(key, None)
        return
    follow_login(session, remember=True)
    session["_remember"] = "clear"


def _logged_out(_app: flask.Flask, **_: Any) -> None:
    if session.subject is None:
        return
    clear = session.get("_remember")
    session.logout()
    if clear is not None:
        session["_remember"] = clear


def _protected(app: flask.Flask, **_: Any) -> None:
    """End the session that Flask-Login's "strong" protection took the user from."""
    if "_user_id" not in session:
        _logged_out(app)
