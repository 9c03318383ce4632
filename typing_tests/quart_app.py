"""Quart: the extension, the typed session, guards, typed data, sockets, and what commits at once."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import quart
from quart import Quart

from coatcheck import AsyncRegistry, Level, Typed
from coatcheck.adapters.quart import Coatcheck, exchange_of, require_login, session, session_of


class Cart(msgspec.Struct):
    """The application's own data."""

    items: list[str] = []


app = Quart(__name__)
coatcheck = Coatcheck(app, store="sqlite:///sessions.db", origins=["https://shop.example"])


@app.post("/login")
async def login() -> str:
    """Log in."""
    session.login("alice", level=Level.AAL2)
    return "in"


@app.get("/")
@require_login(within=timedelta(minutes=10), fresh=True)
async def home() -> str:
    """Read what is there."""
    typed: Typed[Cart] = session_of(quart.request, Cart)
    tries: int = await exchange_of(quart.request).bump(session, "tries")
    registry: AsyncRegistry = coatcheck.registry
    await registry.revoke_all(session.require_login(), keep=session.handle)
    return f"{typed.data.items} {tries}"


@app.websocket("/chat")
@require_login
async def chat() -> None:
    """Save at once."""
    session["last"] = await quart.websocket.receive()
    await exchange_of(quart.websocket).save(session)
