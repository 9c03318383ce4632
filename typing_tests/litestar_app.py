"""Litestar: the plugin, guards, injection, typed data, and what needs the exchange."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, WebSocket, get, post, websocket

from coatcheck import AsyncRegistry, Level, MemoryStore, Refusal, Session, SessionManager, Typed, near, timeouts
from coatcheck.adapters.litestar import (
    SECURITY,
    CoatcheckPlugin,
    exchange_of,
    provide_session,
    refusal_response,
    require_login,
    session_of,
)

AnyRequest = Request[Any, Any, Any]
store = near(MemoryStore().as_async())


class Cart(msgspec.Struct):
    """The application's own data."""

    items: list[str] = []
    coupon: str | None = None


@post("/login")
async def login(request: AnyRequest) -> str | None:
    """Log in."""
    session: Session = session_of(request)
    session.login("alice", methods=("pwd", "otp"), level=Level.AAL2, remember=True, carry={"cart": lambda cart: True})
    session["seen"] = session.get("seen", 0) + 1
    return session.handle


@get("/", guards=[require_login(within=timedelta(minutes=10), level=Level.AAL1)], security=[SECURITY])
async def home(request: AnyRequest) -> str:
    """Read what is there."""
    typed: Typed[Cart] = session_of(request, Cart)
    typed.data.items.append("hat")
    tries: int = await exchange_of(request).bump(typed.session, "tries")
    return f"{typed.session.require_login()} {tries}"


@get("/injected", sync_to_thread=True)
def injected(session: Session) -> str | None:
    """Have the session injected."""
    return session.subject


@websocket("/ws", guards=[require_login(fresh=True)])
async def chat(socket: WebSocket[Any, Any, Any], session: Session) -> None:
    """Say who is there."""
    await socket.accept()
    session["said"] = await socket.receive_text()
    await exchange_of(socket).save(session)
    await socket.send_text(str(session_of(socket).subject))


@post("/end")
async def end(request: AnyRequest) -> list[bool]:
    """End sessions from outside."""
    registry = AsyncRegistry(store)
    page = await registry.find("alice")
    ended: list[bool] = [await registry.revoke(record.handle, "owner", subject="alice") for record in page.items]
    await registry.revoke_all("alice", keep=session_of(request).handle)
    return ended


def refused(request: AnyRequest, refusal: Refusal) -> Response[bytes]:
    """Answer a refusal in the application's own way."""
    response: Response[bytes] = refusal_response(request, refusal)
    response.headers["x-reason"] = refusal.reason
    return response


app = Litestar(
    [login, home, injected, chat, end],
    plugins=[CoatcheckPlugin(store=store, origins=["https://shop.example"], timeouts=timeouts("pci"), data=Cart)],
    dependencies={"session": provide_session},
)
other = Litestar([login], plugins=[CoatcheckPlugin(store="sqlite:///sessions.db", manager=SessionManager())])
