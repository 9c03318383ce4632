"""The Cloakroom put together: its settings, its routes, and the two middlewares around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from coatcheck import AsyncRegistry, SessionManager, timeouts
from coatcheck.adapters.starlette import SessionMiddleware
from coatcheck.flow.async_store import AsyncStore

from . import entry, shop, tickets
from .accounts import Accounts
from .desk import Desk, StaleFormError, page
from .door import STATIC, Door
from .goods import is_cart

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")

CLOCKS: Final = timeouts(idle=15 * 60, absolute=8 * 3600, remember=30 * 86400, remember_idle=14 * 86400)
RECENT: Final = 5 * 60.0
"""Seconds after a login in which one may change the password without being asked for it again."""

FAST_CLOCKS: Final = timeouts(
    idle=60,
    absolute=10 * 60,
    remember=3600,
    remember_idle=30 * 60,
    renew=30,
    grace=5,
    why="to watch: on one machine no request is under way for more than a moment",
)
FAST_RECENT: Final = 30.0

ROUTES: Final = [
    Route("/", shop.catalogue),
    Route("/cart", shop.cart),
    Route("/cart", shop.put, methods=["POST"]),
    Route("/checkout", shop.checkout),
    Route("/checkout", shop.order, methods=["POST"]),
    Route("/receipt", shop.receipt),
    Route("/signup", entry.new_account),
    Route("/signup", entry.create_account, methods=["POST"]),
    Route("/login", entry.sign_in_form),
    Route("/login", entry.sign_in, methods=["POST"]),
    Route("/logout", entry.sign_out, methods=["POST"]),
    Route("/password", entry.new_password),
    Route("/password", entry.change_password, methods=["POST"]),
    Route("/sessions", tickets.sessions),
    Route("/sessions/end", tickets.end, methods=["POST"]),
    Route("/sessions/end-others", tickets.end_others, methods=["POST"]),
    Route(tickets.STATUS, tickets.status),
    Route("/session/stay", tickets.stay, methods=["POST"]),
    Route("/trail", tickets.trail),
    Mount(STATIC.rstrip("/"), StaticFiles(directory=Path(__file__).parent / "static")),
]


def make_app(
    store: AsyncStore,
    *,
    accounts: Accounts,
    hosts: Collection[str] = LOOPBACK,
    recent: float = RECENT,
    clock: Callable[[], float] = time.time,
    **settings: Any,
) -> Starlette:
    """Return the application; `settings` are coatcheck's own and go over the shop's. Opens nothing."""
    chosen: dict[str, Any] = {
        "timeouts": CLOCKS,
        "limit": 8,
        "carry": {"cart": is_cart},
        "login_url": "/login",
        "exclude": [STATIC],
        "passive": [tickets.STATUS],
        **settings,
    }
    manager = SessionManager(clock=clock, **chosen)
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Door, hosts=hosts), Middleware(SessionMiddleware, store=store, manager=manager)],
        exception_handlers={StaleFormError: _stale, HTTPException: _missing},
    )
    app.state.desk = Desk(manager, AsyncRegistry(store, manager.realm, clock), accounts, recent, clock)
    return app


async def _stale(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette calls it
    return page(request, "stale.html", 403)


async def _missing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if request.url.path.startswith(STATIC):  # there are no sessions, and a page shows one
        return PlainTextResponse("There is no such file.\n", status)
    return page(request, "missing.html", status)
