"""Flask: the extension, the typed session, guards, typed data, and what commits at once."""

from __future__ import annotations

from datetime import timedelta

import flask
import msgspec
from flask import Flask

from coatcheck import Level, Refusal, Registry, Session, Typed, timeouts
from coatcheck.adapters.flask import (
    Coatcheck,
    coatcheck_ended,
    exchange_of,
    refusal_response,
    require_login,
    session,
    session_of,
)


class Cart(msgspec.Struct):
    """The application's own data."""

    items: list[str] = []


app = Flask(__name__)
coatcheck = Coatcheck(app, store="sqlite:///sessions.db", timeouts=timeouts("pci"), origins=["https://shop.example"])
app.register_error_handler(Refusal, refusal_response)


@app.post("/login")
def login() -> str:
    """Log in, and keep something."""
    session.login("alice", methods=("pwd", "otp"), level=Level.AAL2)
    session.permanent = True
    session["seen"] = session.get("seen", 0) + 1
    return "in"


@app.get("/")
@require_login
def home() -> str:
    """Read what is there."""
    here: Session = session_of(flask.request)
    typed: Typed[Cart] = session_of(flask.request, Cart)
    typed.data.items.append("hat")
    tries: int = exchange_of(flask.request).bump(session, "tries")
    return f"{here.subject} {tries}"


@app.post("/end")
@require_login(within=timedelta(minutes=10), level=Level.AAL1)
async def end() -> str:
    """End the other sessions."""
    registry: Registry = coatcheck.registry
    registry.revoke_all(session.require_login(), keep=session.handle)
    return "ended"


@coatcheck_ended.connect_via(app)
def told(sender: Flask, reason: str, handle: str, subject: str | None) -> None:
    """Hear of an end."""
    sender.logger.info("%s %s %s", reason, handle, subject)
