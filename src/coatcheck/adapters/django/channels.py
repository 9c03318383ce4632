"""Sessions for Django Channels: `AuthMiddlewareStack` and its parts, in the place of Channels' own of the same names.

Rules
- A websocket is one of `asgi.SessionMiddleware`'s: its Origin is judged, its session is loaded before it is accepted,
  counted, watched while it is open, and when it is over the socket closes (ENDED_CODE).
- A consumer finds what Channels promises: `scope["session"]` is Django's session class over ours, `scope["user"]` its
  user, `scope["cookies"]` as Channels parses them.
- All stacks of a process share one exchange and one watch. The settings are looked at for each connection.
- A store on Django's own connection is used in Django's thread for such things; another one without an awaited face of
  its own in any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.sessions import CookieMiddleware  # type: ignore[import-untyped]
from django.contrib.auth import get_user  # type: ignore[import-untyped]

from ...core.errors import ConfigError
from ...core.session import Session
from ..asgi import ENDED_CODE, App, Message, Receive, Scope, Send, exchange_of, session_of
from ..asgi import RequireLogin as AsgiGuard
from ..asgi import SessionMiddleware as AsgiMiddleware
from .engine import SessionStore, is_ours
from .site import Site, chosen, site
from .store import DjangoStore

__all__ = [
    "ENDED_CODE",
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "RequireLogin",
    "SessionMiddleware",
    "SessionMiddlewareStack",
    "exchange_of",
    "session_of",
]

_INNER: Final = "coatcheck.inner"
_WATCH: Final = ("watch_every", "watch_recheck")


def AuthMiddlewareStack(inner: Any) -> Any:  # noqa: N802 - as Channels calls it
    """Give consumers cookies, session and user."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))


def SessionMiddlewareStack(inner: Any) -> Any:  # noqa: N802 - as Channels calls it
    """Give consumers cookies and session."""
    return CookieMiddleware(SessionMiddleware(inner))


class SessionMiddleware:
    """Gives each websocket, and each HTTP request that a consumer answers, its session, as `scope["session"]`."""

    def __init__(self, inner: Any) -> None:
        """Wrap an application: consumers, or a router to them."""
        self.inner: App = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.inner(scope, receive, send)
            return
        await _door()({**scope, _INNER: self.inner}, receive, send)


class AuthMiddleware:
    """Gives consumers `scope["user"]`, as Django's `get_user` knows it: SECRET_KEY_FALLBACKS count, as in a request."""

    def __init__(self, inner: Any) -> None:
        """Wrap an application that stands inside of SessionMiddleware."""
        self.inner: App = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        session: Any = scope.get("session")
        if not is_ours(session):
            message = "AuthMiddleware finds no session of ours; put SessionMiddleware around it, or AuthMiddlewareStack"
            raise ConfigError(message)
        user = await database_sync_to_async(_user_of)(session)
        await self.inner({**scope, "user": user}, receive, send)


class RequireLogin(AsgiGuard):
    """Guards consumers: who is not logged in, or not surely or freshly enough, is denied before they hear of it."""

    def __init__(
        self, inner: Any, *, within: timedelta | float | None = None, level: int | None = None, fresh: bool = False
    ) -> None:
        """Wrap an application that stands inside of SessionMiddleware; see `asgi.RequireLogin`."""
        super().__init__(inner, within=within, level=level, fresh=fresh)


def _user_of(session: SessionStore) -> Any:
    if session.is_open:
        return get_user(SimpleNamespace(session=session))
    from django.contrib.auth.models import AnonymousUser  # type: ignore[import-untyped]

    return AnonymousUser()  # an excluded path has no session


# -- the one door of a process -----------------------------------------------------------------------------------------

_gate: Final = threading.Lock()
_built: list[tuple[Site, AsgiMiddleware]] = []


def _door() -> AsgiMiddleware:
    """Return what all connections go through, of the settings as they are now."""
    now = site()
    with _gate:
        if not _built or _built[0][0] is not now:
            given = chosen()
            how: dict[str, Any] = {name: float(given[name.upper()]) for name in _WATCH if name.upper() in given}
            door = AsgiMiddleware(partial(_enter, now), store=awaited(now.store), manager=now.manager, **how)
            _built[:] = [(now, door)]
        return _built[0][1]


async def _enter(of: Site, scope: Scope, receive: Receive, send: Send) -> None:
    """Go on to a consumer, with Django's session class over the session."""
    inner: App = scope[_INNER]
    session = scope.get("session")
    if of.manager.excludes(scope["path"]):
        session = SessionStore.excluded(scope["path"])
    elif isinstance(session, Session):
        session = SessionStore.of(of.exchange, session)
        if scope["type"] == "http":
            send = _dressing(session, send)
    await inner({**scope, "session": session}, receive, send)


def _dressing(face: SessionStore, send: Send) -> Send:
    """Add what Django's session class did to the start of a response."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            face.prepare()
            # in lower case, as ASGI wants them: Django writes them as it pleases
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            message = {**message, "headers": [*headers, *face.pending]}
        await send(message)

    return dressed


# -- a blocking store, awaited -----------------------------------------------------------------------------------------

_VERBS: Final = ("load", "commit", "find", "purge", "epochs", "events", "forget_events", "watch")


def awaited(store: Any) -> Any:
    """Return the awaited face of a project's store."""
    return store.as_async() if hasattr(store, "as_async") else AwaitedStore(store)


class AwaitedStore:
    """A blocking store whose verbs, as many as it has, run in a thread."""

    def __init__(self, store: Any) -> None:
        """Take the store."""
        within = _in_djangos_thread if isinstance(store, DjangoStore) else asyncio.to_thread
        for verb in _VERBS:
            if hasattr(store, verb):
                setattr(self, verb, _awaiting(within, getattr(store, verb)))
        self.listeners = store.listeners
        self.sharded = bool(getattr(store, "sharded", False))

    async def close(self) -> None:
        """Do nothing: the store is the project's."""


def _awaiting(within: Callable[..., Awaitable[Any]], verb: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def called(*arguments: Any, **named: Any) -> Any:
        return await within(verb, *arguments, **named)

    return called


async def _in_djangos_thread(verb: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return await database_sync_to_async(verb)(*arguments, **named)
