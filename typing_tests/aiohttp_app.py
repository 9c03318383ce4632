"""An aiohttp application as users write it, for the type checkers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from coatcheck import AsyncRegistry, Session, Typed
from coatcheck.adapters.aiohttp import SESSIONS, Sessions, exchange_of, require_login, session_of, setup


@dataclass
class Cart:
    """The application's own data."""

    items: list[int] = field(default_factory=list)


async def login(request: web.Request) -> web.StreamResponse:
    """Log in."""
    session: Session = session_of(request)
    session.login("alice")
    raise web.HTTPSeeOther("/")


@require_login(within=timedelta(minutes=10))
async def account(request: web.Request) -> web.StreamResponse:
    """Read, save, list."""
    cart: Typed[Cart] = session_of(request, Cart)
    cart.data.items.append(7)
    await exchange_of(request).save(session_of(request))
    registry: AsyncRegistry = request.app[SESSIONS].registry
    await registry.find("alice")
    return web.Response(text=session_of(request).subject)


class Page(web.View):
    """A page as a class."""

    @require_login
    async def get(self) -> web.StreamResponse:
        """Answer."""
        return web.Response(text=session_of(self.request).subject)


app = web.Application()
app.add_routes([web.post("/login", login), web.get("/account", account), web.view("/page", Page)])
sessions: Sessions = setup(app, store="sqlite:///sessions.db", login_url="/login")
