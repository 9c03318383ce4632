"""Starlette: the session, its acts, typed data, and what needs the exchange."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from coatcheck import AsyncRegistry, Level, MemoryStore, Refusal, Session, SessionLimit, Typed, near, timeouts
from coatcheck.adapters.starlette import SessionMiddleware, exchange_of, refusal_response, session_of


class Cart(msgspec.Struct):
    """The application's own data."""

    items: list[str] = []
    coupon: str | None = None


async def login(request: Request) -> Response:
    """Log in, out, and in again."""
    session: Session = session_of(request)
    session.login("alice", methods=("pwd", "otp"), level=Level.AAL2, remember=True, carry={"cart": lambda cart: True})
    session["seen"] = session.get("seen", 0) + 1
    session.end_others("factor_change")
    session.lasting(idle=timedelta(minutes=5), browser_only=True)
    return RedirectResponse("/", 303)


async def home(request: Request) -> Response:
    """Read what is there."""
    typed: Typed[Cart] = session_of(request, Cart)
    typed.data.items.append("hat")
    subject: str = typed.session.require_login(within=timedelta(minutes=10), level=Level.AAL1)
    tries: int = await exchange_of(request).bump(typed.session, "tries")
    handle: str | None = typed.session.handle
    return PlainTextResponse(f"{subject} {tries} {handle} {typed.session.csrf_token()}")


async def end(request: Request) -> Response:
    """End sessions from outside."""
    store = near(MemoryStore().as_async())
    await exchange_of(request).confirm(session_of(request))
    session_of(request).require_login(fresh=True)
    registry = AsyncRegistry(store)
    page = await registry.find("alice")
    ended: list[bool] = [await registry.revoke(record.handle, "owner", subject="alice") for record in page.items]
    await registry.revoke_all("alice", keep=session_of(request).handle)
    return PlainTextResponse(str(ended))


app = Starlette(
    routes=[Route("/", home), Route("/login", login, methods=["POST"]), Route("/end", end, methods=["POST"])],
    middleware=[
        Middleware(
            SessionMiddleware,
            store="sqlite:///sessions.db",
            origins=["https://shop.example"],
            timeouts=timeouts("pci", idle=timedelta(minutes=10)),
            limit=SessionLimit(3, "refuse"),
            data=Cart,
        )
    ],
    exception_handlers={Refusal: refusal_response},
)
